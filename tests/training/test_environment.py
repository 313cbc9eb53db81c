from __future__ import annotations

import pytest


@pytest.mark.contract(16, 17, 18, 19)
def test_program_gets_typed_values_and_untouched_text(job):
    job.hyperparameters(
        epochs="3", lr="0.10", name='"adam"', flag="true", code="007", big="1e5", layers="[1, 2]"
    )
    job.program(
        "import argparse, json, os\n"
        "p = argparse.ArgumentParser()\n"
        "p.add_argument('--epochs', type=int); p.add_argument('--lr', type=float)\n"
        "p.add_argument('--flag'); p.add_argument('--layers', type=json.loads)\n"
        "for name in ('name', 'code', 'big'): p.add_argument('--' + name, type=str)\n"
        "print(json.dumps([vars(p.parse_args()), json.loads(os.environ['SM_HPS'])]))\n"
    )
    arguments, parsed = job.run("train").seen()
    assert arguments == {
        "epochs": 3, "lr": 0.1, "name": "adam", "flag": "True", "code": "007", "big": "1e5",
        "layers": [1, 2],
    }  # fmt: skip
    assert parsed == {
        "epochs": 3, "lr": 0.1, "name": "adam", "flag": True, "code": "007", "big": 100000.0,
        "layers": [1, 2],
    }  # fmt: skip


@pytest.mark.contract(22)
def test_difficult_text_arrives_unchanged_and_no_shell_expands_it(job):
    texts = {
        "quotes": 'it\'s "quoted" `id` $(id) $HOME',
        "lines": "one\ntwo\r\n\tthree",
        "unicode": "größe 数字 🎉",
        "long": "x" * 2500,
        "star": "*",
        "dash": "--not-an-option",
    }
    job.hyperparameters(**texts)
    job.probe()
    seen = job.run("train").seen()
    given = dict(zip(seen["argv"][::2], seen["argv"][1::2], strict=True))
    assert given == {f"--{name}": text for name, text in texts.items()}
    for name, text in texts.items():
        assert seen["env"][f"SM_HP_{name.upper()}"] == text


@pytest.mark.contract(20)
def test_reserved_keys_reach_neither_arguments_nor_variables(job):
    job.hyperparameters(
        sagemaker_program='"train.py"',
        sagemaker_region='"eu-west-1"',
        sagemaker_container_log_level="20",
        sagemaker_instance_type='"ml.g5.2xlarge"',
        _tuning_objective_metric="loss",
        mp_parameters="{}",
        default_user_module_name="m",
        epochs="1",
    )
    job.probe()
    seen = job.run("train").seen()
    assert seen["argv"] == ["--epochs", "1"]
    assert seen["env"]["SM_HPS"] == '{"epochs":1}'
    assert [name for name in seen["env"] if name.startswith("SM_HP_")] == ["SM_HP_EPOCHS"]


@pytest.mark.contract(21)
@pytest.mark.parametrize("content", [None, {}, "", "  \n"])
def test_absent_or_empty_hyperparameters_mean_defaults(job, content):
    if content is not None:
        job.config("hyperparameters", content)
    job.probe()
    seen = job.run("train").seen()
    assert seen["argv"] == []
    assert seen["env"]["SM_HPS"] == "{}"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("hyperparameters", '{"a": "1",}', "line 1, column 1"),
        ("hyperparameters", '["a"]', "a list"),
        ("hyperparameters", '"a"', "a text"),
        ("hyperparameters", '{"a": "\\u0000"}', "NUL"),
        ("resourceconfig", "{", "resourceconfig.json is not JSON"),
        ("resourceconfig", '{"hosts": "algo-1", "current_host": "algo-1"}', "a list of names"),
        ("resourceconfig", '{"hosts": ["a"], "current_host": 3}', "current_host is a number, 3"),
        ("resourceconfig", '{"hosts": ["a", "b"]}', "current_host is missing"),
        ("resourceconfig", '{"hosts": ["a"], "current_host": "b"}', "'b' is not among hosts"),
        ("resourceconfig", '{"hosts": ["a", "a"], "current_host": "a"}', "names a host twice"),
        ("inputdataconfig", "[]", "a list"),
        ("inputdataconfig", '{"train": 1}', "channel 'train'"),
        ("inputdataconfig", '{"../x": {}}', "cannot be the name"),
    ],
)
def test_malformed_configuration_is_one_clear_line(job, name, content, words):
    job.config(name, content)
    job.probe()
    result = job.run("train")
    assert result.code == 78
    assert words in result.failure
    assert f"{name}.json" in result.failure
    assert "\n" not in result.failure
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("train: error: ")


def test_configuration_that_is_not_utf8_is_named(job):
    (job.root / "input/config/hyperparameters.json").write_bytes(b'{"a": "\xff"}')
    job.probe()
    assert "not UTF-8" in job.run("train").failure


@pytest.mark.contract(23)
def test_old_local_mode_gives_only_hosts(job):
    job.config("resourceconfig", {"current_host": "algo-1-abcde", "hosts": ["algo-1-abcde"]})
    job.probe()
    env = job.run("train").seen()["env"]
    assert env["SM_CURRENT_HOST"] == env["CURRENT_HOST"] == "algo-1-abcde"
    assert env["SM_HOSTS"] == '["algo-1-abcde"]'
    assert env["SM_CURRENT_INSTANCE_TYPE"] == "local"


@pytest.mark.contract(24, 32)
def test_unknown_keys_and_files_are_ignored(job):
    job.config(
        "resourceconfig",
        {
            "current_host": "algo-1",
            "hosts": ["algo-1"],
            "topology": [{"hostName": "algo-1", "capacityUnitId": "u"}],
            "next_year": {"a": [1]},
            "instance_groups": [{"odd": 1}, 7],
        },
    )
    job.config("debughookconfig", "this is { not JSON")
    job.config("init-config", [1])
    job.config("checkpointconfig", "neither is this")
    job.probe()
    result = job.run("train")
    assert result.code == 0
    assert "capacityUnitId" in result.seen()["env"]["SM_TOPOLOGY"]


@pytest.mark.contract(25)
def test_rank_is_the_lexicographic_index_whatever_the_order_of_the_groups(job):
    hosts = [f"algo-{number}" for number in range(1, 12)]
    job.config(
        "resourceconfig",
        {
            "current_host": "algo-2",
            "hosts": hosts[::-1],
            "current_group_name": "g",
            "instance_groups": [
                {"instance_group_name": "g", "instance_type": "ml.c5.xlarge", "hosts": hosts[3:]},
                {"instance_group_name": "h", "instance_type": "ml.c5.xlarge", "hosts": hosts[:3]},
            ],
        },
    )
    job.probe()
    env = job.run("train").seen()["env"]
    assert env["SM_HOSTS"].startswith('["algo-1","algo-10","algo-11","algo-2"')
    assert env["SM_CURRENT_HOST_RANK"] == "3"
    assert env["SM_HOST_COUNT"] == "11"
    assert env["SM_MASTER_ADDR"] == "algo-1"


@pytest.mark.contract(26)
def test_interface_that_does_not_exist_is_ignored_with_a_warning(job):
    job.config(
        "resourceconfig",
        {"current_host": "a", "hosts": ["a"], "network_interface_name": "ethwe9"},
    )
    job.probe()
    result = job.run("train")
    used = result.seen()["env"]["SM_NETWORK_INTERFACE_NAME"]
    assert used != "ethwe9"
    assert f"using {used!r}" in result.stderr
    assert "warning: network interface 'ethwe9' does not exist" in result.stderr


def test_request_variables_are_kept(job):
    job.probe()
    given = {"NCCL_DEBUG": "INFO", "PYTHONUNBUFFERED": "0", "AWS_DEFAULT_REGION": "us-east-2",
             "AWS_REGION": "eu-west-1", "MASTER_ADDR": "mine"}  # fmt: skip
    env = job.run("train", **given).seen()["env"]
    assert {name: env[name] for name in given} == given


@pytest.mark.parametrize(
    "given",
    [
        {"AWS_REGION": "eu-west-1"},
        {"TRAINING_JOB_ARN": "arn:aws:sagemaker:eu-west-1:123456789012:training-job/x"},
    ],
)
def test_default_region_comes_from_the_region_or_the_arn(job, given):
    job.probe()
    assert job.run("train", **given).seen()["env"]["AWS_DEFAULT_REGION"] == "eu-west-1"


@pytest.mark.contract(38)
def test_checkpoint_directory_is_offered_only_when_it_is_there_and_never_made(job):
    job.probe()
    assert "SM_CHECKPOINT_DIR" not in job.run("train").seen()["env"]
    assert not (job.root / "checkpoints").exists()
    (job.root / "checkpoints").mkdir()
    env = job.run("train").seen()["env"]
    assert env["SM_CHECKPOINT_DIR"] == str(job.root / "checkpoints")


def test_checkpoint_directory_of_the_request_is_taken(job, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    job.config("checkpointconfig", {"S3Uri": "s3://b/k", "LocalPath": str(folder)})
    job.probe()
    assert job.run("train").seen()["env"]["SM_CHECKPOINT_DIR"] == str(folder)


def test_hundred_longest_hyperparameters_still_start(job):
    job.hyperparameters(**{f"parameter_{n}": "ü" * 2500 for n in range(100)})
    job.probe()
    result = job.run("train")
    assert result.code == 0
    assert len(result.seen()["argv"]) == 200
    assert "too long for a variable" in result.stderr
    assert "SM_HPS" in result.stderr


def test_more_than_the_kernel_takes_is_one_clear_line(job):
    job.hyperparameters(**{f"parameter_{n}": "🎉" * 2500 for n in range(400)})
    job.probe()
    result = job.run("train")
    assert result.code == 78
    assert "larger than the kernel hands to a process" in result.failure
    assert "Traceback" not in result.stderr


def test_names_with_dashes_have_both_spellings(job):
    job.config("hyperparameters", {"batch-size": "1", "batch_size": "2", "a.b": "3", "": "4"})
    job.probe()
    env = job.run("train").seen()["env"]
    assert env["SM_HP_BATCH-SIZE"] == "1"
    assert env["SM_HP_BATCH_SIZE"] == "2"
    assert env["SM_HP_A.B"] == env["SM_HP_A_B"] == "3"


def test_log_level_of_the_job_hides_information(job):
    job.hyperparameters(sagemaker_container_log_level="30")
    job.probe()
    assert job.run("train").stderr.count("train: host") == 0


@pytest.mark.parametrize("name", ["algo\0", "\ud800"])
@pytest.mark.parametrize("key", ["current_host", "hosts", "current_group_name"])
def test_name_that_no_process_can_be_given_is_refused(job, key, name):
    job.probe()
    job.config("resourceconfig", {key: [name] if key == "hosts" else name})
    result = job.run("train")
    assert result.code == 78
    assert key in result.failure
    assert "Traceback" not in result.stderr
