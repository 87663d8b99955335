"""Diagrams of networks: boxes and arrows, by hand."""

from xml.sax.saxutils import escape

INK, QUIET, PAPER, ACTOR, CRITIC = "#222222", "#666666", "#ffffff", "#0072B2", "#D55E00"
ENCODERS = "a vector as it is, an integer one-hot, an image by convolutions, a Dict part by part, side by side"
STYLE = f"""
  text {{ font-family: "Helvetica Neue", Arial, sans-serif; font-size: 14px; fill: {INK}; text-anchor: middle; }}
  .small {{ font-size: 12px; fill: {QUIET}; }}
  .left {{ text-anchor: start; }}
  .title {{ font-size: 15px; font-weight: bold; text-anchor: start; }}
  rect {{ fill: {PAPER}; stroke-width: 1.6; }}
  path {{ fill: none; stroke: {INK}; stroke-width: 1.4; marker-end: url(#arrow); }}
  .shared {{ stroke-dasharray: 6 4; }}
"""


def a2c() -> str:
    """Separate trunks above; below, dashed, the variant with a trunk in common."""
    y, z, s = 78, 158, 312  # the rows of the actor, of the critic, and of the shared trunk
    parts = [
        text(24, 34, "Networks() for vectors: two networks without a common parameter", "title"),
        box(24, (y + z) // 2, 84, "obs", "[B, …]", INK),
        arrow((108, 118), (130, 118), (130, y), (150, y)),
        arrow((108, 118), (130, 118), (130, z), (150, z)),
        *row(y, ACTOR, "actor trunk", "actor output", "π(a | s)", "distribution"),
        *row(z, CRITIC, "critic trunk", "critic output", "V(s)", "[B]"),
        text(24, 228, f"The encoder follows from the space: {ENCODERS}.", "small left"),
        '<line x1="24" y1="250" x2="856" y2="250" stroke="#dddddd"/>',
        text(24, 278, "Networks(shared_trunk=True), and images: one encoder and trunk, two linear outputs", "title"),
        box(24, s + 40, 84, "obs", "[B, …]", INK),
        arrow((108, s + 40), (150, s + 40)),
        box(150, s + 40, 130, "encoder", "of the space", INK, "shared"),
        arrow((280, s + 40), (320, s + 40)),
        box(320, s + 40, 150, "shared trunk", "64 tanh, 64 tanh", INK, "shared"),
        arrow((470, s + 40), (490, s + 40), (490, s + 6), (512, s + 6)),
        arrow((470, s + 40), (490, s + 40), (490, s + 74), (512, s + 74)),
        box(512, s + 6, 150, "actor output", "linear", ACTOR),
        box(512, s + 74, 150, "critic output", "linear", CRITIC),
        arrow((662, s + 6), (702, s + 6)),
        arrow((662, s + 74), (702, s + 74)),
        box(702, s + 6, 154, "π(a | s)", "distribution", ACTOR),
        box(702, s + 74, 154, "V(s)", "[B]", CRITIC),
    ]
    return drawing(parts, 436, "The networks of A2C: from the observation to the policy and to the state value")


def acer() -> str:
    """What acts and learns above; below, dashed, the slow copy of the policy and what both give."""
    y, z, s = 78, 158, 266  # the rows of the policy, of the action values, and of the average policy
    parts = [
        text(24, 34, "ACER: a policy, an action value for each action, and an average of past policies", "title"),
        box(24, (y + z) // 2, 84, "obs", "[L, N, …]", INK),
        arrow((108, 118), (130, 118), (130, y), (150, y)),
        arrow((108, 118), (130, 118), (130, z), (150, z)),
        arrow((108, 118), (130, 118), (130, s), (150, s)),
        *row(y, ACTOR, "actor trunk", "actor output", "π(· | s)", "probabilities [n]"),
        *row(z, CRITIC, "critic trunk", "critic output", "Q(s, ·)", "one an action, [n]"),
        *row(s, QUIET, "average trunk", "average output", "π_avg(· | s)", "no gradient", "shared"),
        text(150, 222, "θ_avg ← α θ_avg + (1 − α) θ of the actor, after each gradient; α = 0.99", "small left"),
        '<line x1="24" y1="312" x2="856" y2="312" stroke="#dddddd"/>',
        text(24, 338, "V(s) = Σₐ π(a | s) Q(s, a): no value network. Q is regressed to Q-Retrace.", "small left"),
        text(
            24, 360, "The gradient at the probabilities is projected by k = ∇ KL(π_avg ‖ π), and then goes back "
            "through the actor.", "small left",
        ),
        text(
            24, 382, "shared_trunk=True, and images: one encoder and trunk, two linear outputs, as on A2C's page.",
            "small left",
        ),
    ]  # fmt: skip
    return drawing(parts, 404, "The networks of ACER: policy, action values, and the average policy")


def sac_x() -> str:
    """The actor above, the critic below: a trunk each, with a head for each task; on the right what they are for."""
    y, z = 128, 296  # the rows of the actor and of the critic
    middle = (y + z) // 2
    parts = [
        text(24, 34, "SAC-X: an actor and a critic, each a trunk with a head for each of K tasks", "title"),
        box(24, middle, 84, "obs", "[L, N, …]", INK),
        arrow((108, middle), (124, middle), (124, y), (140, y)),
        arrow((108, middle), (124, middle), (124, z), (140, z)),
        *heads(y, ACTOR, "actor trunk", ("π₁(· | s)", "π_K(· | s)")),
        *heads(z, CRITIC, "critic trunk", ("Q₁(s, a)", "Q_K(s, a)")),
        box(24, z + 44, 84, "action", "in [−1, 1]", INK, "shared"),
        arrow((108, z + 44), (324, z + 44), (324, z + 26)),
        box(724, y, 132, "one task acts", "drawn every ξ steps", INK),
        box(724, z, 132, "all tasks learn", "from every step", INK),
        '<line x1="24" y1="390" x2="856" y2="390" stroke="#dddddd"/>',
        text(
            24, 416, "The last of hidden_sizes is each head's own layer; those before it are the trunk. Task K is the "
            "main one; tests play its head.", "small left",
        ),
        text(
            24, 438, "Dashed: Box actions. With discrete ones the critic reads no action, and its heads have an "
            "output for each.", "small left",
        ),
        text(24, 460, "Targets are those of a copy of both networks, made anew every 200 updates.", "small left"),
    ]  # fmt: skip
    return drawing(parts, 482, "The networks of SAC-X: actor and critic, each a trunk and a head for each task")


def heads(y: int, colour: str, trunk: str, results: tuple[str, str]) -> list[str]:
    """A network with a head for each task: the first and the last, and what they give to a box on their right."""
    parts = [
        box(140, y, 100, "encoder", "of the space", colour),
        arrow((240, y), (264, y)),
        box(264, y, 120, trunk, "128, 128 elu", colour),
        text(484, y + 5, "⋮"),
        text(627, y + 5, "⋮"),
    ]
    for row, name, result, task in zip((y - 44, y + 44), "1K", results, ("task 1", "main task"), strict=True):
        parts += [
            arrow((384, y), (404, y), (404, row), (424, row)),
            box(424, row, 120, f"head {name}", "32 elu, linear", colour),
            arrow((544, row), (572, row)),
            box(572, row, 110, result, task, colour),
            arrow((682, row), (703, row), (703, y), (724, y)),
        ]
    return parts


def drawing(parts: list[str], height: int, title: str) -> str:
    """An SVG of these parts, 880 wide."""
    head = '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    arrowhead = f'{head}<polygon points="0,0 8,4 0,8" fill="{INK}"/></marker>'
    lines = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 {height}" width="880" height="{height}" '
        'role="img">\n'
        f"<title>{title}</title>\n"
        f"<style>{STYLE}</style>\n<defs>{arrowhead}</defs>\n"
        f'<rect x="0" y="0" width="880" height="{height}" fill="{PAPER}"/>\n{lines}\n</svg>\n'
    )


def row(y: int, colour: str, trunk: str, output: str, result: str, kind: str, style: str = "") -> list[str]:
    """One of several separate networks, from its encoder to what it gives."""
    return [
        box(150, y, 130, "encoder", "of the space", colour, style),
        arrow((280, y), (320, y)),
        box(320, y, 150, trunk, "64 tanh, 64 tanh", colour, style),
        arrow((470, y), (512, y)),
        box(512, y, 150, output, "linear", colour, style),
        arrow((662, y), (702, y)),
        box(702, y, 154, result, kind, colour, style),
    ]


def box(x: int, y: int, width: int, label: str, below: str, colour: str, style: str = "") -> str:
    """A box with two lines of text; `y` is its middle."""
    middle = x + width // 2
    return (
        f'<rect class="{style}" x="{x}" y="{y - 26}" width="{width}" height="52" rx="6" stroke="{colour}"/>\n'
        f"{text(middle, y - 3, label)}\n{text(middle, y + 15, below, 'small')}"
    )


def text(x: int, y: int, words: str, style: str = "") -> str:
    return f'<text class="{style}" x="{x}" y="{y}">{escape(words)}</text>'


def arrow(*points: tuple[int, int]) -> str:
    return f'<path d="M {" L ".join(f"{x} {y}" for x, y in points)}"/>'
