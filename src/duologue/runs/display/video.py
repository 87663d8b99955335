"""Write pictures as a video: GIF by Pillow, MP4 by the ffmpeg of the package imageio-ffmpeg (extra: `video`)."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from duologue.errors import ConfigError, MissingExtraError
from duologue.storage import files

AddPicture = Callable[[np.ndarray], None]
"""Adds the next picture, uint8 `[H, W, 3]`; all pictures of a video have one shape."""

SHORTEST, SLOWEST = 2, 1 / 600
"""Shortest time of a picture in a GIF, in hundredths of a second, because viewers slow down faster pictures. Smallest
number of pictures a second, because a GIF has 16 bits for a picture's time."""


def check_out(out: str | Path) -> Path:
    """The path of a video. Raises `ConfigError` for another kind of file, `MissingExtraError` for a missing package."""
    path = Path(out)
    match path.suffix.lower():
        case ".gif":
            _pillow()
        case ".mp4":
            _ffmpeg()
        case _:
            raise ConfigError(f"out = {str(out)!r}: must end in .gif or .mp4.")
    return path


@contextmanager
def open_video(path: Path, fps: float) -> Iterator[AddPicture]:
    """A context with a function that adds a picture to the video. If the context ends well, the video is at `path` and
    replaces an earlier file; else the file there is unchanged."""
    files.make_folder(path.absolute().parent)
    with (
        files.replace_file(path) as temporary,
        (_gif if path.suffix.lower() == ".gif" else _mp4)(temporary, fps) as add,
    ):
        yield add


@contextmanager
def _mp4(path: Path, fps: float) -> Iterator[AddPicture]:
    with tempfile.TemporaryFile() as complaints, ExitStack() as stack:
        process: subprocess.Popen[bytes] | None = None

        def add(picture: np.ndarray) -> None:
            nonlocal process
            picture = pad_to_even(picture)
            if process is None:
                process = stack.enter_context(_encoder(path, picture.shape, fps, complaints))
            process.stdin.write(picture)  # pyright: ignore[reportOptionalMemberAccess]

        with suppress(BrokenPipeError):  # ffmpeg has ended; its message is raised below
            yield add
            stack.close()
        if process is None or process.wait() or not path.is_file():
            complaints.seek(0)
            raise OSError(complaints.read().decode(errors="replace").strip() or "ffmpeg wrote nothing")


@contextmanager
def _encoder(
    path: Path, shape: tuple[int, ...], fps: float, complaints: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """A context with ffmpeg, which reads pictures `[H, W, 3]`. At its end it waits for ffmpeg; on an error it kills
    ffmpeg.

    ffmpeg has a process group of its own, so Ctrl-C reaches only this process. imageio-ffmpeg's own writer makes this
    group with a function between fork and exec, which is not safe with JAX's threads.
    """
    command = [
        _ffmpeg().get_ffmpeg_exe(), "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24",
        "-s", f"{shape[1]}x{shape[0]}", "-r", f"{fps:.6f}", "-i", "-", "-c:v", "libx264", "-crf", "18",
        "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4", str(path.absolute()),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=complaints, process_group=0
    )
    try:
        yield process
        process.communicate()
    except BaseException:
        process.kill()
        raise
    finally:
        with suppress(OSError, ValueError):  # the pipe is broken, or Ctrl-C closed it
            process.communicate()


@contextmanager
def _gif(path: Path, fps: float) -> Iterator[AddPicture]:
    image, pictures = _pillow(), []

    def add(picture: np.ndarray) -> None:  # each picture has its own 256 colours, one byte for a pixel
        pictures.append(image.fromarray(picture).quantize(256, dither=image.Dither.NONE))

    yield add
    kept, milliseconds = timetable(len(pictures), fps)
    first, *rest = [pictures[i] for i in kept]
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)


def timetable(count: int, fps: float) -> tuple[list[int], list[int]]:
    """`(shown, times)`: which of `count` pictures a GIF shows, and how many milliseconds each.

    A GIF counts hundredths of a second, and viewers slow down pictures of less than two. So times are rounded without
    drift, and above 50 pictures a second some pictures are left out.
    """
    begin = [round(100 * i / max(fps, SLOWEST)) for i in range(count + 1)]
    kept: list[int] = []
    for i in range(count):
        if not kept or begin[i] - begin[kept[-1]] >= SHORTEST:
            kept.append(i)
    ends = [*(begin[i] for i in kept[1:]), max(begin[-1], begin[kept[-1]] + SHORTEST)]
    return kept, [10 * (end - begin[i]) for i, end in zip(kept, ends, strict=True)]


def pad_to_even(picture: np.ndarray) -> np.ndarray:
    """The picture with an even height and width, as MP4 requires; it repeats the last row or column."""
    height, width, _ = picture.shape
    return np.ascontiguousarray(np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("video", "writing GIF files") from error
    return Image


def _ffmpeg() -> Any:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise MissingExtraError("video", "writing MP4 files") from error
    return imageio_ffmpeg
