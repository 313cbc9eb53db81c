"""Configurations for the differential test: written ones, and any number from a seed."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from tests.training.oracle.configuration import Configuration

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = (
    "adam", "", " ", "a b  c", "it's \"x\" $HOME `id` $(id)", "a\nb\tc\r\n", "größe 数字 🚀 שלום",
    "back\\slash\\n", "--not-an-option", "-", "s3://bucket/a b/c", "a=b,c=d", "*", "~", "#x", "%s",
    "{not json", "[1, 2", '"half', "\x1b[31mred", "\u2028", "x" * 2500, "'\"\n\\" * 600, "é" * 2500,
)  # fmt: skip
NUMBERS = (
    "0", "-0", "3", "-3", "007", "+5", "0.5", ".5", "5.", "0.10", "1.0", "1e5", "1E-7", "-1.5e+300",
    "1e-400", "1e400", "-1e999", "NaN", "Infinity", "-Infinity", "nan", "1_000", "0x10",
    "\uff11\uff12", "123456789012345678901234567890", "9" * 400, " 5 ", "\t7\n", "1 2",
)  # fmt: skip
CONSTANTS = ("true", "false", "null", "True", "False", "None", "TRUE", "yes", " true ", " null ")
LITERALS = (
    "['a', 'b']", "{'a': 1}", "{1: None, 2: True}", "[1, 2,]", "(1, 2)", "{1, 2}", "[b'x']",
    "[1e999]", "[NaN]", "{'a': (1, 2)}", "[True, false]", "['unclosed", "[...]", "{'a': [{}]}",
)  # fmt: skip
JSON_TEXTS = (
    '"adam"', '"true"', '"True"', '"false"', '"null"', '"007"', '"gr\\u00f6\\u00dfe"', '"\\"x\\""',
    "[1, 2]", '["a","b"]', '[[1, 2], {"a": null}]', '{"b": 2, "a": "x"}', "{}", "[]", "[1e5, -0.0]",
    ' {"a": [true]} ', '{"a": 1, "a": 2}', '{"a=b": "c,d"}', '"a\nb"', '{"x": NaN}',
)  # fmt: skip
#: Written ones hold every text above; generated ones mix them.
TEXTS = (*WORDS, *NUMBERS, *CONSTANTS, *LITERALS, *JSON_TEXTS)
#: Of names; no ``=``, which no variable's name can have.
ODD = "-_. :/@%+,()[]{}'\"\\$&;|<>*?!~#^`äßé数🚀\n"
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
PROGRAMS = (
    "train.py", "train.py", "train.py", "src/train.py", "my-script.v2.py", "a+b/run_me.py",
    "run.sh", "bin/run",
)  # fmt: skip
TYPES = (
    "ml.m5.large",
    "ml.g5.12xlarge",
    "ml.p5.48xlarge",
    "local",
    "local_gpu",
    "ml.trn2.48xlarge",
)
#: Switches of SDK v2's ``distribution=``. Those in the second line start the program in another
#: way where this host takes part, so only hosts outside of the named groups have them.
SWITCHES = (
    "sagemaker_parameter_server_enabled",
    "sagemaker_multi_worker_mirrored_strategy_enabled",
)
LAUNCHING = ("sagemaker_torch_distributed_enabled", "sagemaker_mpi_enabled")


def written() -> Iterator[Configuration]:
    """Cases that have mattered, each for itself."""
    yield Configuration("nothing")
    yield Configuration("texts", {f"p{n}": text for n, text in enumerate(TEXTS) if len(text) < 999})
    yield Configuration("long texts", {f"p{n}": t for n, t in enumerate(TEXTS) if len(t) >= 999})
    yield Configuration(
        "types in the file", {"a": 1, "b": True, "c": None, "d": [1, "x"], "e": 0.5, "f": {"g": 1}}
    )
    yield Configuration(
        "names", {"b": "1", "batch-size": "2", "learning_rate": "0.1", "Upper": "x", "ß": "y"}
    )
    yield Configuration("two spellings", {"a-b": "1", "a_b": "2", "a.b": "3"})
    yield Configuration(
        "topology",
        resources={
            "current_host": "algo-1",
            "hosts": ["algo-1"],
            "topology": [{"hostName": "algo-1", "capacityUnitId": "c"}],
        },
    )
    yield Configuration("ours", {"byoc_launcher": "direct", "mp_parameters": '{"a": 1}', "z": "1"})


def generated(seed: int, count: int) -> Iterator[Configuration]:
    """The same ones for the same seed, and the first of many are the first of few."""
    for number in range(count):
        yield _Maker(random.Random(f"{seed} {number}")).make(f"seed {seed}, number {number}")


class _Maker:
    """One configuration from one source of chance."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.program = chance.choice(PROGRAMS)
        # A shell drops variables that it cannot name, under both commands.
        self.odd = "_" if not self.program.endswith(".py") else ODD

    def make(self, label: str) -> Configuration:
        some = self.some
        resources, reserved = self.resources()
        hyperparameters = {**self.hyperparameters(), **reserved}
        environ = {
            **some(0.5, TRAINING_JOB_NAME="job-7"),
            **some(0.3, TRAINING_JOB_ARN="arn:aws:sagemaker:eu-north-1:1:training-job/job-7"),
            **some(0.3, AWS_REGION="eu-west-1"),
            **some(0.2, AWS_DEFAULT_REGION="us-east-2"),
            **some(0.2, PYTHONPATH="/somewhere:/else where"),
            **some(0.2, PYTHONUNBUFFERED="0"),
            **some(0.2, SAGEMAKER_CONTAINER_LOG_LEVEL="10"),
            **some(0.2, SAGEMAKER_SUBMIT_DIRECTORY="s3://bucket/other.tar.gz"),
            **some(0.2, USERS_OWN="a\nb 'c' \"d\""),
        }
        if self.chance.random() < 0.5:
            environ["SAGEMAKER_PROGRAM"] = self.program
            hyperparameters |= some(0.3, sagemaker_program='"another.py"')
        else:
            hyperparameters["sagemaker_program"] = self.encoded(self.program)
        entries = list(hyperparameters.items())
        self.chance.shuffle(entries)
        return Configuration(
            label,
            dict(entries),
            resources,
            self.inputs(),
            environ,
            self.program,
            arguments=self.chance.choice(((), (), (), ("--extra", "a b"), ("-x", "$HOME\n"))),
            gpus=self.chance.choice((0, 0, 1, 4, 8)),
            one_cpu=self.chance.random() < 0.3,
            checkpoints=self.chance.random() < 0.2,
        )

    def some(self, share: float, **entries: Any) -> dict[str, Any]:
        return entries if self.chance.random() < share else {}

    def name(self, longest: int, odd: str) -> str:
        length = self.chance.choice((1, 2, 5, 9, longest))
        return "".join(
            self.chance.choice(odd if self.chance.random() < 0.2 else LETTERS)
            for _ in range(length)
        )

    def names(self, count: int, longest: int, odd: str) -> list[str]:
        """No two that are one variable."""
        found: dict[str, str] = {}
        while len(found) < count:
            name = self.name(longest, odd)
            found.setdefault(name.upper(), name)
        return list(found.values())

    # Hyperparameters.

    def hyperparameters(self) -> dict[str, Any]:
        names = self.names(self.chance.choice((0, 1, 3, 8, 20)), 200, self.odd)
        users = {name: self.raw() for name in names if not name.startswith("sagemaker_")}
        some = self.some
        return {
            **users,
            **some(0.2, sagemaker_region='"eu-west-3"'),
            **some(0.3, sagemaker_job_name=self.encoded("job-8")),
            **some(0.3, sagemaker_container_log_level=self.chance.choice(("10", "20", "30"))),
            **some(0.2, sagemaker_submit_directory=self.encoded("s3://bucket/sourcedir.tar.gz")),
            **some(0.2, sagemaker_instance_type='"ml.g5.12xlarge"'),
            **some(0.2, sagemaker_enable_cloudwatch_metrics="false"),
            **some(0.2, _tuning_objective_metric="loss"),
            **some(0.1, default_user_module_name="x"),
            **some(0.2, sagemaker_unknown=self.raw()),
            **some(0.1, mp_parameters='{"partitions": 2}'),
            **some(0.1, byoc_launcher="direct"),
        }

    def encoded(self, text: str) -> str:
        """As some client sends a text."""
        return self.chance.choice((text, json.dumps(text), json.dumps(text, ensure_ascii=False)))

    def raw(self) -> Any:
        """One value, as some client sends it."""
        pick = self.chance.random()
        if pick < 0.35:
            return self.chance.choice(TEXTS)
        value = self.value(0)
        if pick < 0.40:
            return value  # a file written by hand
        encode = self.chance.choice((str, str, json.dumps, json.dumps, self.compact, self.padded))
        text: str = encode(value)
        # Once more, as some clients do with everything.
        return (json.dumps(text) if self.chance.random() < 0.15 else text)[:2500]

    @staticmethod
    def compact(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)

    def padded(self, value: Any) -> str:
        return self.chance.choice(" \t\n") + json.dumps(value, indent=1) + " "

    def value(self, depth: int) -> Any:
        chance = self.chance
        if depth < 3 and chance.random() < 0.25:
            items = [self.value(depth + 1) for _ in range(chance.randrange(4))]
            return items if chance.random() < 0.5 else {self.name(9, ODD): item for item in items}
        length = chance.choice((3, 30, 2400)) if depth == 0 else 8
        return chance.choice(
            (
                chance.choice((True, False, None)),
                chance.randint(-(10**12), 10**12),
                chance.choice((0.1, -1e-9, 1e22, 3.0, chance.gauss(0, 1e3))),
                chance.choice(WORDS)[:40],
                "".join(chance.choice(LETTERS + ODD + "=") for _ in range(length)),
            )
        )

    # Channels, hosts.

    def inputs(self) -> dict[str, Any]:
        odd = self.odd if self.odd == "_" else "._-"
        names = self.names(self.chance.choice((0, 1, 1, 2, 5, 20)), 64, odd)
        some = self.some
        return {
            name: {
                **some(0.9, TrainingInputMode=self.chance.choice(("File", "Pipe"))),
                **some(0.7, S3DistributionType="FullyReplicated"),
                **some(0.7, RecordWrapperType=self.chance.choice(("None", "RecordIO"))),
                **some(0.3, ContentType="application/x-npy; größe"),
            }
            for name in names
            if name not in (".", "..")
        }

    def resources(self) -> tuple[dict[str, Any], dict[str, str]]:
        """resourceconfig.json, and the hyperparameters that go with it."""
        chance = self.chance
        pattern = chance.choice(("algo-{}", "algo-{}", "algo-{}-x7k2p", "10.0.0.{}", "host_{}.a.b"))
        hosts = [pattern.format(n + 1) for n in range(chance.choice((1, 1, 2, 3, 11, 16)))]
        if chance.random() < 0.5:
            chance.shuffle(hosts)
        current = chance.choice(hosts)
        kind = chance.choice(TYPES)
        found: dict[str, Any] = {
            "current_host": current,
            "hosts": hosts,
            **self.some(0.7, current_instance_type=kind),
            **self.some(0.7, network_interface_name=chance.choice(("lo", "eth0", "ethwe", ""))),
            **self.some(
                0.1, topology=[{"hostName": host, "capacityUnitId": "c"} for host in hosts]
            ),
            **self.some(0.2, something_new={"x": [1, None]}),
        }
        reserved = self.some(0.2, sagemaker_network_interface_name=chance.choice(('"lo"', "ib0")))
        switch = self.some(0.3, **{chance.choice(SWITCHES): chance.choice(("true", "false"))})
        if chance.random() < 0.4:
            return found, {**reserved, **switch}
        mine, others = self.groups(found, kind)
        if others and chance.random() < 0.4:
            switch = {chance.choice((*SWITCHES, *LAUNCHING)): "true"}
            switch["sagemaker_distribution_instance_groups"] = json.dumps(others)
        elif chance.random() < 0.3:
            named = [mine, *others[:1]]
            reserved["sagemaker_distribution_instance_groups"] = json.dumps(named)
        return found, {**reserved, **switch}

    def groups(self, found: dict[str, Any], kind: str) -> tuple[str, list[str]]:
        """Instance groups for the hosts: the name of the current host's, and those of others."""
        hosts = list(found["hosts"])
        self.chance.shuffle(hosts)
        count = min(len(hosts), self.chance.choice((1, 2, 3, 5)))
        names = ["homogeneousCluster"] if count == 1 else [f"group-{n}" for n in range(count)]
        shares = [hosts[n::count] for n in range(count)]
        found["instance_groups"] = [
            {"instance_group_name": name, "instance_type": kind, "hosts": share}
            for name, share in zip(names, shares, strict=True)
        ]
        mine = next(
            name
            for name, share in zip(names, shares, strict=True)
            if found["current_host"] in share
        )
        if count > 1 or self.chance.random() < 0.8:
            found["current_group_name"] = mine
        return mine, [name for name in names if name != mine]
