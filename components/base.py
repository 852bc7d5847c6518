"""The one decorator of all components, and the image that they run in."""

from functools import partial

from kfp import dsl

IMAGE = "registry.local/scanloop/compute-python:0.1.0"
"""Image of every step; `submit --image` puts another in its place. KFP's local runner expects "python" in the name."""

component = partial(dsl.component, base_image=IMAGE, install_kfp_package=False)
"""Lightweight component whose image holds everything already: nothing is installed when it starts."""
