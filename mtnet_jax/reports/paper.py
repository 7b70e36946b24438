"""The results that the paper reports, for comparison with ours.

Tang & Zhang, MT-Net, J. Imaging 2024, 10(9):234. The paper prints per cent;
this module holds fractions. Numbers in brackets are the paper's references. Its
text names the authors of only some of them. We identified [4] and [34] by the
Dice index in their own abstracts, 81.58 and 82.74.
"""

from mtnet_jax import metrics

CITATION = 'Tang & Zhang, J. Imaging 2024, 10(9):234'


def _segmentation(*per_cent):
  return _fractions(metrics.SEGMENTATION, per_cent)


def _classification(*per_cent):
  return _fractions(metrics.CLASSIFICATION, per_cent)


def _fractions(names, per_cent):
  """Returns metric -> fraction, None for what a method did not report."""
  return {
    name: None if value is None else round(value / 100, 3)
    for name, value in zip(names, per_cent, strict=True)
  }


# Table 5, first row.
COARSE_SEGMENTATION = _segmentation(80.1, 66.8, 94.9, 93.4, 98.2)
# Tables 1, 2 and 5, last rows.
FINE_SEGMENTATION = _segmentation(83.2, 71.2, 96.3, 92.5, 97.7)
# Table 4, first row: Class-net without the coarse mask.
CLASSIFICATION_WITHOUT_COARSE = _classification(84.2, 90.6, 80.1, 92.5)
# Tables 1, 3 and 4, last rows.
CLASSIFICATION = _classification(91.9, 93.5, 81.4, 95.0)

# Table 1, other methods: config.strategy -> (method with the number of its
# reference, segmentation, classification).
MULTI_TASK = {
  'shared': (
    'Wu et al. [30]',
    _segmentation(73.9, None, None, None, None),
    _classification(97.6, None, None, None),
  ),
  'feedback': (
    'Chen et al. [31]',
    _segmentation(86.4, 77.1, None, None, None),
    _classification(87.1, None, None, None),
  ),
  'serial': (
    'Yu et al. [1]',
    _segmentation(80.5, None, None, 80.5, None),
    _classification(87.3, 90.7, None, None),
  ),
}

# Table 2, other methods: (method, year, segmentation).
SEGMENTATION_METHODS = (
  ('Reference [33]', 2018, _segmentation(78.0, 64.0, None, 86.0, None)),
  ('Liu et al. [4]', 2019, _segmentation(81.6, 68.9, None, 87.3, None)),
  ('Cao et al. [34]', 2020, _segmentation(82.7, 70.5, None, 89.4, None)),
  ('Reference [6]', 2021, _segmentation(82.5, 70.2, None, 82.3, None)),
  ('Ni et al. [32]', 2022, _segmentation(83.0, 71.0, None, None, None)),
)

# Table 3, other methods: (method, year, classification).
CLASSIFICATION_METHODS = (
  ('Reference [25]', 2018, _classification(83.5, 91.2, 80.5, 86.0)),
  ('Reference [35]', 2019, _classification(84.2, 85.6, 70.5, 88.9)),
  ('Reference [26]', 2021, _classification(84.3, 91.6, 84.5, 83.8)),
  ('Huang et al. [36]', 2022, _classification(91.1, 95.8, None, None)),
)

# config.strategy -> output -> metric -> fraction.
STRATEGIES = {
  'mtnet': {
    'coarse': COARSE_SEGMENTATION,
    'fine': FINE_SEGMENTATION,
    'class': CLASSIFICATION,
  },
  **{
    strategy: {'fine': segmentation, 'class': classification}
    for strategy, (_, segmentation, classification) in MULTI_TASK.items()
  },
}

# Sweep of configs/ablations.py or baselines.py -> (point, output) -> metric ->
# fraction.
SWEEPS = {
  'table1': {
    (strategy, output): values
    for strategy, outputs in STRATEGIES.items()
    for output, values in outputs.items()
  },
  'table4': {
    ('without_mask', 'class'): CLASSIFICATION_WITHOUT_COARSE,
    ('with_mask', 'class'): CLASSIFICATION,
  },
  'table5': {
    ('with_mask', 'coarse'): COARSE_SEGMENTATION,
    ('with_mask', 'fine'): FINE_SEGMENTATION,
  },
}

SWEEPS['tables'] = {
  **SWEEPS['table1'],
  ('without_mask', 'class'): CLASSIFICATION_WITHOUT_COARSE,
}

# Sweep -> what table 1 or section 4.6 of the paper says about it.
SWEEP_STATEMENTS = {
  'table1': (
    'DI 83.2 beside 73.9 (Wu et al.), 86.4 (Chen et al.) and 80.5 (Yu et al.),'
    ' ACC 91.9 beside 97.6, 87.1 and 87.3, each on a selection of its own.'
  ),
  'table4': 'the AUC increases from 90.6 to 93.5 with the coarse mask.',
  'table5': 'DI increases from 80.1 (coarse) to 83.2 (fine).',
  'figure7': 'the Jaccard index is highest at K = 20 and margin = 0.3.',
  'figure8': 'the Jaccard index is highest at gamma = 0.02.',
}
