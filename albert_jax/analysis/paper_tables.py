"""Tables of the paper next to this package's measurements, as Markdown and as figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from albert_jax.config.paper import TableRow
from albert_jax.data.files import replace_text, replacing

Results = Mapping[str, Mapping[str, Any]]

_INTRINSIC: tuple[str, ...] = ("MLM", "NSP", "SOP")
_SOURCE = "arXiv:1909.11942"


def write_table(
    path: Path, title: str, scale: str, rows: Mapping[str, TableRow], results: Results
) -> None:
    """Writes a Markdown table of the paper's numbers and this package's measurements.

    Args:
      path: the file.
      title: the table's title.
      scale: the scale of the measurements.
      rows: the table's rows.
      results: for some rows, a measurement or {"failed": why}; see `sweep.measure`.
    """
    head = ["row", "paper: parameters", "paper: Avg", *(f"paper: {n}" for n in _INTRINSIC)]
    ours = ["parameters", "MLM loss (nats)", *(f"{name} (%)" for name in _INTRINSIC)]
    lines = [head + ours]
    for name, result in results.items():
        lines.append([name, *_paper_cells(rows[name]), *_own_cells(result)])
    if not any(rows[name].scores.intrinsic for name in results):
        lines = [line[:3] + line[6:] for line in lines]
    about = (
        f"The *paper* columns are from {_SOURCE}; the others were measured here, at the scale "
        f"*{scale}*, on held-out text. Avg is over SQuAD 1.1 and 2.0, MNLI, SST-2 and RACE; MLM, "
        "NSP and SOP are accuracies."
    )
    lines.insert(1, ["---"] * len(lines[0]))
    said = [f"# {title}", "", about, "", *(f"| {' | '.join(line)} |" for line in lines)]
    replace_text(path, "\n".join(said) + "\n")


def draw_table(
    path: Path, title: str, scale: str, rows: Mapping[str, TableRow], results: Results
) -> None:
    """Draws the paper's numbers, the measurements, and measured losses against parameters.

    The last panel is left out if the objectives differ, as in Table 5. Arguments are those of
    `write_table`; `path` is a .png.
    """
    from matplotlib.figure import Figure  # imported here because the import takes half a second

    names = list(results)
    intrinsic = any(rows[name].scores.intrinsic for name in names)
    theirs, ours = _bars(rows, results, intrinsic)
    height = 1.6 + 0.42 * len(names) * (1.6 if intrinsic else 1)
    figure = Figure(figsize=(11 if intrinsic else 15, height))
    figure.set_layout_engine("constrained")
    left, right, *rest = figure.subplots(1, 2 if intrinsic else 3)
    right.sharey(left)
    right.tick_params(labelleft=False)
    _draw_bars(left, names, theirs)
    _draw_bars(right, names, ours)
    label = "accuracy (%)" if intrinsic else "mean of five downstream tasks (%)"
    left.set(title=f"the paper ({_SOURCE})", xlabel=label)
    right.set(
        title=f"here, at the scale “{scale}”",
        xlabel="accuracy, held out (%)" if intrinsic else "MLM accuracy, held out (%)",
    )
    if intrinsic:
        for axes in (left, right):
            axes.axvline(50, ls=":", color="grey", label="chance (NSP, SOP)")
            axes.set_xlim(0, 105)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    for axes in rest:
        _draw_losses(axes, results)
    figure.suptitle(title)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _paper_cells(row: TableRow) -> list[str]:
    size = f"{row.parameters} M" if row.parameters else ""
    intrinsic = row.scores.intrinsic or ()
    return [size, f"{row.scores.avg:.1f}", *([f"{x:.1f}" for x in intrinsic] or [""] * 3)]


def _own_cells(result: Mapping[str, Any]) -> list[str]:
    if "failed" in result:
        why = " ".join(result["failed"].split()).replace("|", "/")
        return [f"failed: {why}", *[""] * 4]
    accuracies = [f"{100 * result[f'{n.lower()}_accuracy']:.1f}" for n in _INTRINSIC]
    return [f"{result['parameters'] / 1e6:.2f} M", f"{result['mlm_loss']:.3f}", *accuracies]


def _bars(
    rows: Mapping[str, TableRow], results: Results, intrinsic: bool
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Returns the paper's and the measured series: label -> a value per row, nan if missing."""
    shown = _INTRINSIC if intrinsic else _INTRINSIC[:1]
    missing = float("nan")
    if intrinsic:
        printed = [rows[name].scores.intrinsic or (missing,) * 3 for name in results]
        theirs = {label: [scores[i] for scores in printed] for i, label in enumerate(shown)}
    else:
        theirs = {"Avg": [rows[name].scores.avg for name in results]}
    ours = {
        label: [100 * r.get(f"{label.lower()}_accuracy", missing) for r in results.values()]
        for label in shown
    }
    return theirs, ours


def _draw_bars(axes: Any, names: Sequence[str], series: Mapping[str, Sequence[float]]) -> None:
    """Draws a group of horizontal bars per row, the first on top, with values next to them."""
    height = 0.8 / len(series)
    for i, (label, values) in enumerate(series.items()):
        places = [place + (i - (len(series) - 1) / 2) * height for place in range(len(names))]
        bars = axes.barh(places, [0 if v != v else v for v in values], height, label=label)
        said = ["failed" if v != v else f"{v:.1f}" for v in values]
        axes.bar_label(bars, labels=said, padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.grid(axis="x", alpha=0.3)


def _draw_losses(axes: Any, results: Results) -> None:
    """Draws measured losses against parameters, one point per row."""
    for name, result in results.items():
        if "failed" not in result:
            axes.plot(result["parameters"] / 1e6, result["mlm_loss"], "o", label=name)
    axes.legend(fontsize=8)
    axes.set(title="loss against parameters, here", xlabel="parameters (millions)")
    axes.set(ylabel="MLM loss, held out (nats)")
    axes.grid(alpha=0.3)
