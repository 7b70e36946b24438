"""Renders the HTML templates beside this file."""

from typing import Any

import jinja2

from mtnet_jax.reports import tables


def render(template: str, **values: Any) -> str:
  """Returns the HTML of a template; all values are escaped as text.

  Args:
    template: file name in `templates`.
    **values: all variables that the template uses.
  """
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('mtnet_jax.reports'),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  environment.globals.update(texts=tables.texts, heading=tables.heading)
  return environment.get_template(template).render(**values)
