"""What the paper reports, to stand beside our numbers.

Tang & Zhang, MT-Net, J. Imaging 2024, 10(9):234; per cent there, fractions
here.
"""

CITATION = 'Tang & Zhang, J. Imaging 2024, 10(9):234'

_SEGMENTATION = ('dice', 'jaccard', 'accuracy', 'recall', 'specificity')
_CLASSIFICATION = ('accuracy', 'auc', 'sensitivity', 'specificity')

# Table 5, first row.
COARSE_SEGMENTATION = {
  'dice': 0.801,
  'jaccard': 0.668,
  'accuracy': 0.949,
  'recall': 0.934,
  'specificity': 0.982,
}

# Tables 1, 2 and 5, last rows.
FINE_SEGMENTATION = {
  'dice': 0.832,
  'jaccard': 0.712,
  'accuracy': 0.963,
  'recall': 0.925,
  'specificity': 0.977,
}

# Table 4, first row: Class-net without the coarse mask.
CLASSIFICATION_WITHOUT_COARSE = {
  'accuracy': 0.842,
  'auc': 0.906,
  'sensitivity': 0.801,
  'specificity': 0.925,
}

# Tables 1, 3 and 4, last rows.
CLASSIFICATION = {
  'accuracy': 0.919,
  'auc': 0.935,
  'sensitivity': 0.814,
  'specificity': 0.950,
}

# Sweep -> (point, output) -> values, of configs/ablations.py.
SWEEPS = {
  'table4': {
    ('without_mask', 'class'): CLASSIFICATION_WITHOUT_COARSE,
    ('with_mask', 'class'): CLASSIFICATION,
  },
  'table5': {
    ('with_mask', 'coarse'): COARSE_SEGMENTATION,
    ('with_mask', 'fine'): FINE_SEGMENTATION,
  },
}

# What table 1 and section 4.6 say of them.
SWEEP_STATEMENTS = {
  'table1': (
    'DI 83.2 beside 73.9 ([30]), 86.4 ([31]) and 80.5 ([1]), ACC 91.9 beside'
    ' 97.6, 87.1 and 87.3, each on a selection of its own.'
  ),
  'table4': 'the AUC increases from 90.6 to 93.5 with the coarse mask.',
  'table5': 'DI increases from 80.1 (coarse) to 83.2 (fine).',
  'figure7': 'the Jaccard index is highest at K = 20 and margin = 0.3.',
  'figure8': 'the Jaccard index is highest at gamma = 0.02.',
}


def _per_cent(names, values):
  """name -> fraction; None for what a method did not report."""
  return {
    name: None if value is None else round(value / 100, 3)
    for name, value in zip(names, values, strict=True)
  }


# Table 1: strategy (as in config.strategy) -> (method, segmentation,
# classification) of others, with the paper's numbers of references.
MULTI_TASK = {
  strategy: (
    method,
    _per_cent(_SEGMENTATION, segmentation),
    _per_cent(_CLASSIFICATION, classification),
  )
  for strategy, method, segmentation, classification in (
    (
      'shared',
      'Wu et al. [30]',
      (73.9, None, None, None, None),
      (97.6, None, None, None),
    ),
    (
      'feedback',
      'Chen et al. [31]',
      (86.4, 77.1, None, None, None),
      (87.1, None, None, None),
    ),
    (
      'serial',
      'Yu et al. [1]',
      (80.5, None, None, 80.5, None),
      (87.3, 90.7, None, None),
    ),
  )
}

# The sweep of configs/baselines.py that makes table 1.
SWEEPS['table1'] = {
  ('mtnet', 'fine'): FINE_SEGMENTATION,
  ('mtnet', 'class'): CLASSIFICATION,
  **{
    (strategy, output): values
    for strategy, (_, *both) in MULTI_TASK.items()
    for output, values in zip(('fine', 'class'), both, strict=True)
  },
}

# Table 2: (method, year, values) of others.
SEGMENTATION_METHODS = tuple(
  (method, year, _per_cent(_SEGMENTATION, values))
  for method, year, values in (
    ('[33]', 2018, (78.0, 64.0, None, 86.0, None)),
    ('[4]', 2019, (81.6, 68.9, None, 87.3, None)),
    ('[34]', 2020, (82.7, 70.5, None, 89.4, None)),
    ('[6]', 2021, (82.5, 70.2, None, 82.3, None)),
    ('Ni et al. [32]', 2022, (83.0, 71.0, None, None, None)),
  )
)

# Table 3: (method, year, values) of others.
CLASSIFICATION_METHODS = tuple(
  (method, year, _per_cent(_CLASSIFICATION, values))
  for method, year, values in (
    ('[25]', 2018, (83.5, 91.2, 80.5, 86.0)),
    ('[35]', 2019, (84.2, 85.6, 70.5, 88.9)),
    ('[26]', 2021, (84.3, 91.6, 84.5, 83.8)),
    ('Huang et al. [36]', 2022, (91.1, 95.8, None, None)),
  )
)
