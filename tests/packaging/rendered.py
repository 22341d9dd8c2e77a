"""What Helm, Kubernetes and Compose make of packaging/: python rendered.py REPOSITORY. Prints what is wrong, else nothing.

Wants helm-python-sdk (Helm's own code), kubernetes-validate (Kubernetes' schemas) and compose-spec. Needs no network.
"""

import sys
from pathlib import Path

import helm_python
import kubernetes_validate
import yaml
from compose_spec import PyCompose

REPOSITORY = Path(sys.argv[1])
CHART = REPOSITORY / "packaging/helm/llama-stack"
KUBERNETES = "1.34"
WARNING = 2

# The chart's own, and some that go through what those leave out.
VALUES = [
    {},
    {
        "secret": "keys",
        "replicas": 3,
        "image": {"tag": "9"},
        "persistence": {"storageClass": "fast"},
        "service": {"type": "LoadBalancer"},
    },
]

wrong = []


def rendered(values):
    """The objects that `helm template` makes, by their kind."""
    with helm_python.Chart.load(CHART) as chart:
        texts = chart.render(values=values, name="stack", namespace="agents").values()
    return {one["kind"]: one for text in texts for one in yaml.safe_load_all(text) if one}


def expect(what, got, wanted):
    if got != wanted:
        wrong.append(f"{what}: {got!r}, not {wanted!r}")


for values in VALUES:
    report = helm_python.lint(CHART, values=values)
    wrong += [f"helm lint: {one['path']}: {one['error']}" for one in report["messages"] if one["severity"] >= WARNING]
    wrong += [f"helm lint: {error}" for error in report["errors"]]
    objects = rendered(values)
    expect("what is rendered", sorted(objects), ["ConfigMap", "Service", "StatefulSet"])
    for kind, one in objects.items():
        try:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            wrong.append(f"{kind}: {'.'.join(map(str, error.path))}: {error.message}")

plain, full = rendered(VALUES[0]), rendered(VALUES[1])
own = yaml.safe_load((CHART / "values.yaml").read_text())
expect("the manifest", yaml.safe_load(plain["ConfigMap"]["data"]["manifest.yaml"]), own["manifest"])
container = full["StatefulSet"]["spec"]["template"]["spec"]["containers"][0]
expect("the image", container["image"], "llama-stack:9")
expect("the environment", container["envFrom"], [{"secretRef": {"name": "keys"}}])
expect("the storage", full["StatefulSet"]["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"], "fast")
expect("the pods", full["StatefulSet"]["spec"]["selector"]["matchLabels"], full["Service"]["spec"]["selector"])

compose = (REPOSITORY / "packaging/compose/compose.yaml").read_text()
try:
    PyCompose.from_yaml(compose).validate()
except Exception as error:
    wrong.append(f"compose.yaml: {error}")

print("\n".join(wrong), end="\n" if wrong else "")
