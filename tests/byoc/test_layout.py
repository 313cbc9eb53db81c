from __future__ import annotations

import json

from byoc.local.layout import TrainingLayout


def test_the_platform_s_three_files_are_written(tmp_path):
    layout = TrainingLayout(tmp_path, {"epochs": "1"}, {"training": tmp_path})
    layout.create()
    config = tmp_path / "input" / "config"
    assert json.loads((config / "hyperparameters.json").read_text()) == {"epochs": "1"}
    assert json.loads((config / "inputdataconfig.json").read_text()) == {
        "training": {
            "TrainingInputMode": "File",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "None",
        }
    }
    resources = json.loads((config / "resourceconfig.json").read_text())
    assert resources["current_host"] == "algo-1"
    assert resources["hosts"] == ["algo-1"]
    assert layout.model.is_dir()
    assert layout.output_data.is_dir()


def test_the_failure_text_is_read_when_there_is_one(tmp_path):
    layout = TrainingLayout(tmp_path)
    layout.create()
    before = layout.failure
    assert not before
    (tmp_path / "output" / "failure").write_bytes(b"ValueError: no\xff good\n")
    assert layout.failure == "ValueError: no\ufffd good"
