"""Stored rows on many machines: `python -m albert_jax.prepare.beam ... -- --runner=FlinkRunner`.

Writes the same rows, files and manifest, byte for byte, as `python -m albert_jax.prepare`, with
any runner and any number of workers. Takes the same arguments and, after `--`, Beam's own:

  one machine    -- --direct_running_mode=multi_processing --direct_num_workers=8
  Flink          -- --runner=FlinkRunner --flink_master=HOST:8081
  Spark          -- --runner=SparkRunner --spark_master_url=spark://HOST:7077
  Dataflow       -- --runner=DataflowRunner --project=P --region=R --temp_location=gs://B/tmp

Install with `pip install '.[beam]'` in an environment of its own: Beam needs older packages than
requirements.txt has. All machines mount inputs, tokenizer and output at the same path, and the
workers have this package (`--environment_type`, `--sdk_container_image`). Train the vocabulary
first, on one machine, with `prepare`: a sample is enough. One worker reads one source (a file or a
TFDS dataset), so split a large corpus into many files.

Tested with Beam's direct runner in several processes; not on a cluster.
"""

import sys
from collections.abc import Sequence

from albert_jax.prepare.__main__ import row_arguments, run
from albert_jax.prepare.beam_rows import BeamRows


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = row_arguments(
        "albert_jax.prepare.beam", "Makes training rows from text, with Beam.", __doc__ or ""
    )
    add = parser.add_argument
    add("--tokenizer", required=True, metavar="FILE", help="the vocabulary to use")
    add(
        "beam_options", nargs="*", default=[], metavar="-- BEAM'S OPTIONS",
        help="such as --runner=FlinkRunner",
    )  # fmt: skip
    options = vars(parser.parse_args(arguments))
    return run(write_rows=BeamRows(options.pop("beam_options")), num_workers=1, **options)


if __name__ == "__main__":
    sys.exit(main())
