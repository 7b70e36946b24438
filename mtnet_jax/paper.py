"""What the paper reports, to stand beside our numbers.

Tang & Zhang, MT-Net, J. Imaging 2024, 10(9):234; per cent there, fractions
here.
"""

CITATION = 'Tang & Zhang, J. Imaging 2024, 10(9):234'

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
