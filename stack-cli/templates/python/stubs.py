"""Python stubs of the contract, generated from proto/ into a temporary folder at import."""

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

_proto = Path(__file__).resolve().parent / "proto"
_out = tempfile.mkdtemp(prefix="llama-stack-stubs-")
_failed = protoc.main(
    ["protoc", f"-I{_proto}", f"-I{files('grpc_tools') / '_proto'}", f"--python_out={_out}", f"--grpc_python_out={_out}"]
    + [str(path.relative_to(_proto)) for path in sorted(_proto.glob("llama_stack/v1/*.proto"))]
)
if _failed:
    raise SystemExit("the proto files could not be compiled")
sys.path.insert(0, _out)
