"""Process with ``Processor`` and ``ScriptProcessor``: inputs, outputs, arguments, a failure.

Argument: the training image, which has Python and numpy.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sagemaker.processing import ProcessingInput, ProcessingOutput, Processor, ScriptProcessor
from sdk2_user import INSTANCE, ROLE, error_of, heard, new_session, tell

(image,) = sys.argv[1:]
session = new_session()
bucket = session.default_bucket()
IN, OUT = "/opt/ml/processing/in", "/opt/ml/processing/out"
Path("numbers").mkdir()
Path("numbers/a.txt").write_text("1 2 3")
Path("numbers/b.txt").write_text("4")
Path("halve.py").write_text(f"""
import os, pathlib, sys
import numpy as np

if sys.argv[1] == "0":
    sys.exit("cannot divide by zero")
for path in sorted(pathlib.Path("{IN}").iterdir()):
    parts = np.array(path.read_text().split(), float) / float(sys.argv[1])
    pathlib.Path("{OUT}", path.name).write_text(" ".join(map(str, parts)))
    print("divided", path.name, os.environ["KIND"], flush=True)
""")
common = {
    "role": ROLE,
    "image_uri": image,
    "instance_count": 1,
    "instance_type": INSTANCE,
    "max_runtime_in_seconds": 120,
    "sagemaker_session": session,
}


def content(prefix: str) -> dict[str, str]:
    """The objects below a prefix."""
    listed = session.list_s3_files(bucket, f"{prefix}/")
    return {key.removeprefix(f"{prefix}/"): session.read_s3_file(bucket, key) for key in listed}


script = ScriptProcessor(command=["python3"], env={"KIND": "numbers"}, **common)
# A local folder as source and no destination: the SDK uploads the one and names the other.
with heard() as log:
    script.run(
        code="halve.py",
        inputs=[ProcessingInput(source="numbers", destination=IN)],
        outputs=[ProcessingOutput(output_name="halves", source=OUT)],
        arguments=["2"],
    )
job = script.latest_job
destination = job.outputs[0].destination
found = {
    "log": [line for line in log.getvalue().splitlines() if "divided" in line],
    "halves": content(destination.removeprefix(f"s3://{bucket}/")),
    "status": job.describe()["ProcessingJobStatus"],
    "output named": destination == f"s3://{bucket}/{job.job_name}/output/halves",
}
with heard() as log:
    found["failure"] = error_of(
        script.run,
        code="halve.py",
        inputs=[ProcessingInput(source="numbers", destination=IN)],
        arguments=["0"],
    )
found["said"] = "cannot divide by zero" in log.getvalue()

# One that brings its own words; its input is an object, its output a prefix that is given.
session.upload_string_as_file_body("seven", bucket=bucket, key="words/w.txt")
plain = Processor(entrypoint=["/bin/sh", "-c", f"tr a-z A-Z < {IN}/w.txt > {OUT}/w.txt"], **common)
plain.run(
    inputs=[ProcessingInput(source=f"s3://{bucket}/words", destination=IN)],
    outputs=[ProcessingOutput(source=OUT, destination=f"s3://{bucket}/upper")],
    logs=False,
)
described = plain.latest_job.describe()
tell(
    **found,
    upper=content("upper"),
    plain=described["ProcessingJobStatus"],
    image=described["AppSpecification"]["ImageUri"],
)
