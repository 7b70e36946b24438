"""Pages from the templates beside this file."""

import jinja2

from mtnet_jax.reports import tables


def render(template, **values):
  """The HTML of a template; what it is given is text and no markup.

  Args:
    template: name of the file in `templates`.
    **values: all that it names.
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
