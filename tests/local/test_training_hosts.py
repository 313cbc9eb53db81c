"""Training jobs of several hosts."""

from __future__ import annotations

import pytest

from tests.local.jobs import (
    BUCKET,
    channel,
)

CLUSTER = {"byoc_launcher": "torchrun"}
SHARED = "print('host', host, sorted(p.name for p in (data / 'training').iterdir()), flush=True)\n"


@pytest.mark.slow
def test_several_hosts_share_the_data_and_their_outputs_are_merged(jobs):
    jobs.put(**{f"shards/{n}": str(n) for n in range(5)})
    found = jobs.run(
        SHARED + "(model / f'rank-{os.environ[\"RANK\"]}').write_text(host)\n"
        "(model / 'common').write_text(host)\n",
        HyperParameters=CLUSTER,
        InputDataConfig=[
            channel(f"s3://{BUCKET}/shards/", source={"S3DataDistributionType": "ShardedByS3Key"})
        ],
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
    )
    name = found["TrainingJobName"]
    first, second = jobs.log(name, "algo-1"), jobs.log(name, "algo-2")
    assert any(line.endswith("['0', '2', '4']") for line in first if line.startswith("host "))
    assert any(line.endswith("['1', '3']") for line in second if line.startswith("host "))
    model = jobs.archive(name, "model.tar.gz")
    assert set(model) == {"rank-0", "rank-1", "common"}
    assert model["common"] == model["rank-0"]
    assert "byoc: several hosts wrote common; the first host's file is kept" in first


@pytest.mark.slow
def test_instance_groups_are_hosts_of_several_types(jobs):
    jobs.put(**{"groups/x": "1"})
    found = jobs.run(
        "config = json.loads((root / 'input/config/resourceconfig.json').read_text())\n"
        "print(json.dumps([config['current_group_name'], config['current_instance_type'],\n"
        "    len(config['instance_groups'][1]['hosts']), (data / 'training').exists()]))\n",
        InputDataConfig=[channel(f"s3://{BUCKET}/groups/", source={"InstanceGroupNames": ["big"]})],
        ResourceConfig={
            "VolumeSizeInGB": 1,
            "InstanceGroups": [
                {"InstanceGroupName": "big", "InstanceType": "ml.m5.xlarge", "InstanceCount": 1},
                {"InstanceGroupName": "small", "InstanceType": "ml.m5.large", "InstanceCount": 2},
            ],
        },
    )
    name = found["TrainingJobName"]
    assert '["big", "ml.m5.xlarge", 2, true]' in jobs.log(name, "algo-1")
    for host in ("algo-2", "algo-3"):
        assert '["small", "ml.m5.large", 2, false]' in jobs.log(name, host)


@pytest.mark.slow
def test_the_first_host_that_fails_gives_the_reason(jobs):
    found = jobs.run(
        "if os.environ['RANK'] == '1': raise ValueError('only here')\ntime.sleep(100)\n",
        "Failed",
        HyperParameters=CLUSTER,
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
    )
    assert "ValueError: only here" in found["FailureReason"]
