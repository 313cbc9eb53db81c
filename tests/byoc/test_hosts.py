"""What starts where: processors, CUDA and drivers."""

from __future__ import annotations

from typing import Any

import pytest

from byoc.errors import CombinationError
from byoc.hosts import AMI_DRIVERS, DEFAULT_DRIVERS, Cuda, check, cuda_of, family, inference_ami

CU128, CU130 = Cuda("12.8", 525), Cuda("13.0", 580)
AMI_3, AMI_4 = "al2-ami-sagemaker-inference-gpu-3-1", "al2023-ami-sagemaker-inference-gpu-4-1"


@pytest.mark.parametrize(
    ("instance", "cuda", "ami"),
    [
        ("ml.g5.xlarge", CU128, AMI_3),
        ("ml.g5.xlarge", CU130, AMI_4),
        ("ml.g4dn.xlarge", CU128, AMI_3),
        ("ml.p4d.24xlarge", CU130, AMI_4),
        ("ml.g6.xlarge", CU128, None),
        ("ml.g6.xlarge", CU130, AMI_4),
        ("ml.p5e.48xlarge", CU130, AMI_4),
        ("ml.g7e.2xlarge", CU130, None),
        ("ml.p6-b200.48xlarge", CU130, None),
        ("ml.p3.2xlarge", CU128, AMI_3),
        ("ml.m5.large", CU130, None),
        ("ml.g5.xlarge", None, None),
    ],
)
def test_the_ami_has_the_driver_that_the_image_needs(instance, cuda, ami):
    assert inference_ami(instance, cuda) == ami
    if cuda and instance.startswith(("ml.g", "ml.p")):
        driver = AMI_DRIVERS[ami] if ami else DEFAULT_DRIVERS[family(instance)]
        assert driver >= cuda.minimum_driver


@pytest.mark.parametrize(
    ("instance", "cuda", "given", "words"),
    [
        ("ml.g5.xlarge", CU130, AMI_3, "driver 550 and CUDA 13.0 needs 580"),
        ("ml.p3.2xlarge", CU130, None, "no code for the GPUs"),
        ("ml.c7g.xlarge", CU128, None, "exec format error"),
        ("ml.c6gd.xlarge", None, None, "exec format error"),
        ("ml.p6e-gb200.36xlarge", CU130, None, "exec format error"),
        ("ml.inf2.xlarge", CU128, None, "accelerator of another kind"),
        ("ml.trn1.2xlarge", None, None, "accelerator of another kind"),
        ("g5.xlarge", CU128, None, "is no instance type"),
        ("ml.g5.xlarge", CU128, "al2-ami-sagemaker-inference-gpu-9", "is no InferenceAmiVersion"),
    ],
)
def test_what_cannot_start_is_refused(instance, cuda, given, words):
    with pytest.raises(CombinationError, match=words):
        inference_ami(instance, cuda, given)


@pytest.mark.parametrize("of", ["g4dn.xlarge", "g6.xlarge", "g7.xlarge", "r7i.large", "m7i.large"])
def test_instances_with_a_g_in_their_name_are_not_all_arm(of):
    check(f"ml.{of}", None)


def test_every_instance_type_of_the_api_is_understood():
    from botocore import session

    model: Any = session.get_session().get_service_model("sagemaker")
    for shape in ("ProductionVariantInstanceType", "TrainingInstanceType"):
        for instance in model.shape_for(shape).metadata["enum"]:
            assert family(instance)
    amis = set(model.shape_for("ProductionVariantInferenceAmiVersion").metadata["enum"])
    assert amis >= AMI_DRIVERS.keys()
    assert all("neuron" in ami for ami in amis - AMI_DRIVERS.keys())


def test_arm_families_are_those_that_aws_calls_graviton_or_grace():
    from botocore import session

    model: Any = session.get_session().get_service_model("sagemaker")
    refused = set()
    for instance in model.shape_for("ProductionVariantInstanceType").metadata["enum"]:
        try:
            check(instance, None)
        except CombinationError as error:
            if "exec format" in str(error):
                refused.add(family(instance))
    assert refused == {
        "c6g", "c6gd", "c6gn", "c7g", "c8g", "m6g", "m6gd", "m8g", "p6e-gb200", "r6g", "r6gd",
        "r7gd", "r8g",
    }  # fmt: skip


def test_labels_say_what_is_needed():
    assert cuda_of({}) is None
    assert cuda_of({"sagemaker-byoc.cuda.version": "nonsense"}) is None
    assert cuda_of({"sagemaker-byoc.cuda.version": "13.0"}) == CU130
    labels = {"sagemaker-byoc.cuda.version": "12.8", "sagemaker-byoc.cuda.minimum-driver": "525"}
    assert cuda_of(labels) == CU128


@pytest.mark.parametrize(
    "words",
    [
        ("train",),
        ("deploy", "--model-data", "s3://b/m.tar.gz"),
        ("process", "--entrypoint", "x"),
        ("transform", "s3://b/in/", "--model", "m"),
    ],
)
def test_an_instance_type_that_is_not_there_is_one_line_before_any_call(byoc, no_engine, words):
    done = byoc(*words, "-t", "ml.m5.xlarg")
    assert done.code == CombinationError.exit_code
    assert "did you mean ml.m5.xlarge?" in done.err
    assert len(done.err.splitlines()) == 1
