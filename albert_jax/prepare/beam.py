"""Preparation on many machines: `python -m albert_jax.prepare.beam … -- --runner=FlinkRunner`.

The rows, their files and the manifest are identical to those of `python -m albert_jax.prepare`,
for any runner and any number of workers. The command takes the same arguments and, after `--`,
those of Apache Beam:

  one machine    -- --direct_running_mode=multi_processing --direct_num_workers=8
  Flink          -- --runner=FlinkRunner --flink_master=HOST:8081
  Spark          -- --runner=SparkRunner --spark_master_url=spark://HOST:7077
  Dataflow       -- --runner=DataflowRunner --project=P --region=R --temp_location=gs://B/tmp

Input, tokenizer and output must be in a file system that this machine and all workers mount at
the same path, and the workers must have this package (`--environment_type`,
`--sdk_container_image`). Train the vocabulary beforehand, on one machine, with `prepare`. Each
source (a file, a TFDS data set) is read by one worker, so split a large corpus into many files.
"""

import sys
from collections.abc import Sequence

from albert_jax.prepare.__main__ import row_arguments, run
from albert_jax.prepare.beam_rows import BeamRows


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = row_arguments("albert_jax.prepare.beam", "Make training rows from text, with Beam.")
    add = parser.add_argument
    add("--tokenizer", required=True, metavar="FILE", help="a SentencePiece model to use")
    add(
        "beam_options", nargs="*", default=[], metavar="-- BEAM'S OPTIONS",
        help="such as --runner=FlinkRunner",
    )  # fmt: skip
    options = vars(parser.parse_args(arguments))
    return run(write_rows=BeamRows(options.pop("beam_options")), num_workers=1, **options)


if __name__ == "__main__":
    sys.exit(main())
