"""The plugin as a package, which vLLM finds by its entry point."""

from setuptools import setup

setup(
    name="melo-vllm-cpu-rows",
    version="1",
    py_modules=["melo_vllm_cpu_rows"],
    entry_points={"vllm.general_plugins": ["melo_cpu_rows = melo_vllm_cpu_rows:install"]},
)
