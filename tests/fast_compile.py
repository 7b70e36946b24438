"""Compiling fast, for tests of which compiling is what takes time."""

import functools

import jax

OPTIONS = {'xla_backend_optimization_level': 0}
jit = functools.partial(jax.jit, compiler_options=OPTIONS)
