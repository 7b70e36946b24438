"""Compiles without optimizations, for tests that mainly wait for compilers."""

import functools

import jax

OPTIONS = {'xla_backend_optimization_level': 0}
jit = functools.partial(jax.jit, compiler_options=OPTIONS)
