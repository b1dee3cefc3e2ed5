"""What pretraining each preset takes on each chip: estimated by compilers, on a machine with none.

    python benchmarks/accelerators.py --chips v5e v5p v6e --output benchmarks/results/accelerators
    python benchmarks/accelerators.py --chips h100 a100-40 --output benchmarks/results/accelerators

Compiles the published batch for 64 chips with several numbers of rows at once
(`albert_jax.estimate`), keeps the fastest that fits as PRESET_CHIP.json, and draws the table and
the picture of all that are there. --before compiles the program without what was made for
accelerators: attention by XLA, and a loop over the layers. --heads writes the results into the
configs. TPUs need jax[tpu], GPUs jax[cuda13] or jax[cuda12]; no chip.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
PRESETS = ("base", "large", "xlarge", "xxlarge")
CHIPS = ("v5e", "v5p", "v6e", "h100", "a100-40")
DEVICES, BATCH = 64, 4096
# Rows a device at once that are tried. More need more memory; fewer may stay in a TPU's vector
# memory, which is faster.
ROWS = {"base": (32, 8), "large": (32, 16, 8), "xlarge": (16, 8, 4), "xxlarge": (16, 8, 2)}
BEFORE = ("--config.train.attention=xla", "--config.train.unroll=1")


def estimate(preset: str, chip: str, rows: int, changes: tuple[str, ...]) -> dict[str, Any]:
    """The estimate's JSON; phases are empty if it does not fit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        accum_steps = BATCH // DEVICES // rows
        command = [sys.executable, "-m", "albert_jax.estimate", "--only", "--json", str(path)]
        command += ["--config", f"configs/{preset}.py", "--devices", f"{chip}:{DEVICES}"]
        command += [f"--config.train.grad_accum_steps={accum_steps}", *changes]
        subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
        if not path.exists():
            sys.exit(f"failed: {' '.join(command)}")
        return json.loads(path.read_text("utf-8"))


def best(preset: str, chip: str, rows: tuple[int, ...], changes: tuple[str, ...]) -> Any:
    """The fastest of the programs that fit."""
    found = [estimate(preset, chip, n, changes) for n in rows]
    fits = [one for one in found if one["phases"] and one["phases"][0]["fits"]]
    return min(fits, key=lambda one: next(iter(one["hours"].values())), default=None)


def share(found: dict[str, Any] | None, way: str) -> float | None:
    times = found["phases"][0]["times"] if found else {}
    return times[way]["share_of_peak"] if way in times else None


def rows_of(found: dict[str, Any]) -> int:
    return BATCH // DEVICES // found["phases"][0]["train"]["grad_accum_steps"]


def as_table(results: dict[tuple[str, str, str], dict[str, Any]]) -> str:
    """Markdown: a row a preset and chip."""
    lines = [
        "| preset | chip | rows | before | compiler | roofline | GiB | device-hours |",
        "|---" * 8 + "|",
    ]
    for preset in PRESETS:
        for chip in CHIPS:
            after = results.get((preset, chip, ""))
            if after is None:
                continue
            before = results.get((preset, chip, "before"))
            own = next(iter(after["hours"]))  # the compiler's, or else the roofline
            shares = share(before, own), share(after, "compiler"), share(after, "roofline")
            told = [f"{one:.1%}" if one else "–" for one in shares]
            memory = after["phases"][0]["memory"]["total"] / 2**30
            hours = [f"{DEVICES * value:,.0f}" for value in after["hours"].values()]
            cells = (
                preset,
                chip,
                rows_of(after),
                *told,
                f"{memory:.1f}",
                " to ".join(hours[::-1]),
            )
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def as_summary(results: dict[tuple[str, str, str], dict[str, Any]]) -> str:
    """Markdown for the README: shares of peak and device-hours, a row a preset."""
    lines = ["| | " + " | ".join(CHIPS) + " |", "|---" * (1 + len(CHIPS)) + "|"]
    for preset in PRESETS:
        cells = []
        for chip in CHIPS:
            found = results.get((preset, chip, ""))
            # By the compiler where it makes an estimate, else by the roofline.
            way = next(iter(found["hours"]), None) if found else None
            told = f"{share(found, way):.0%}, {DEVICES * found['hours'][way]:,.0f}" if way else "–"
            cells.append(told)
        lines.append(f"| {preset} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(results: dict[tuple[str, str, str], dict[str, Any]], path: Path) -> None:
    """Bars of where the time of a step goes, before and after, by the compiler."""
    bars = {
        f"{preset}\n{chip}": [results.get((preset, chip, kind)) for kind in ("before", "")]
        for preset in PRESETS
        for chip in CHIPS
        if "compiler" in (results.get((preset, chip, "")) or {"hours": ()})["hours"]
    }
    parts = list(
        dict.fromkeys(
            part
            for pair in bars.values()
            for one in pair
            if one
            for part in one["phases"][0]["times"]["compiler"]["parts"]
        )
    )
    figure, axes = plt.subplots(figsize=(11, 5), layout="constrained")
    colours = plt.get_cmap("tab20").colors
    for x, pair in enumerate(bars.values()):
        for shift, one in zip((-0.2, 0.2), pair, strict=True):
            if one is None:
                continue
            phase = one["phases"][0]
            time = phase["times"]["compiler"]
            # In units of the time that the model's FLOPs take at the chip's peak.
            unit = time["seconds"] * time["share_of_peak"]
            bottom = 0.0
            for part, colour in zip(parts, colours, strict=False):
                height = time["parts"].get(part, 0) / unit
                axes.bar(x + shift, height, 0.36, bottom, color=colour, label=part)
                bottom += height
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(bars)), bars)
    axes.set_ylabel("time, in that of the model's FLOPs at peak")
    axes.set_title("Estimated by the compiler: before (left) and now (right)")
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique, ncols=3, fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write_head(preset: str, results: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    """Replaces the paragraph `Takes:` of a config's head."""
    lines = [f"Takes:  on {DEVICES} chips, estimated (benchmarks/results/accelerators):"]
    for chip in CHIPS:
        if found := results.get((preset, chip, "")):
            train = found["phases"][0]["train"]
            remat = f", remat={train['remat']}" if train["remat"] != "none" else ""
            hours = [f"{DEVICES * value:,.0f}" for value in found["hours"].values()][::-1]
            lines.append(
                f"        {chip:<8}{rows_of(found)} rows a device, "
                f"grad_accum_steps={train['grad_accum_steps']}{remat}: "
                f"{' to '.join(dict.fromkeys(hours))} device-hours"
            )
    path = ROOT / "configs" / f"{preset}.py"
    text = re.sub(r"^Takes:.*?(?=^\S)", "", path.read_text("utf-8"), flags=re.M | re.S)
    path.write_text(text.replace("Scores:", "\n".join(lines) + "\nScores:", 1), "utf-8")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Estimates every preset on every chip.")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--presets", nargs="*", choices=PRESETS, default=PRESETS)
    parser.add_argument("--chips", nargs="*", choices=CHIPS, default=(), help="to compile for")
    parser.add_argument("--rows", nargs="*", type=int, help="rows a device at once to try")
    parser.add_argument("--before", action="store_true", help="compile the program as it was")
    parser.add_argument("--heads", action="store_true", help="write the heads of the configs")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    kind, changes = ("_before", BEFORE) if args.before else ("", ())
    for chip in args.chips:
        for preset in args.presets:
            found = best(preset, chip, tuple(args.rows or ROWS[preset]), changes)
            if found:
                path = args.output / f"{preset}_{chip}{kind}.json"
                path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
            print(preset, chip, "does not fit" if found is None else found["hours"], flush=True)
    results = {}
    for path in args.output.glob("*_*.json"):
        preset, chip, *rest = path.stem.split("_")
        results[preset, chip, "".join(rest)] = json.loads(path.read_text("utf-8"))
    (args.output / "table.md").write_text(as_table(results), "utf-8")
    (args.output / "summary.md").write_text(as_summary(results), "utf-8")
    draw(results, args.output / "time.png")
    if args.heads:
        for preset in PRESETS:
            write_head(preset, results)


if __name__ == "__main__":
    main()
