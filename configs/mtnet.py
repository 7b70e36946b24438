"""MT-Net on LIDC-IDRI: the paper's protocol, and three smaller variants.

    python -m mtnet_jax.main --config=configs/mtnet.py         the paper
    python -m mtnet_jax.main --config=configs/mtnet.py:small   15 minutes
    python -m mtnet_jax.main --config=configs/mtnet.py:demo    6 minutes
    python -m mtnet_jax.main --config=configs/mtnet.py:test    a minute

The last two run on phantoms. Every field is also a flag: --config.seed=1
Section numbers refer to Tang & Zhang, J. Imaging 2024, 10(9):234.
"""

import ml_collections

VARIANTS = ('mtnet', 'small', 'demo', 'test')


def get_config(variant: str = 'mtnet') -> ml_collections.ConfigDict:
  """Returns the config of a variant; 'mtnet' is the paper's protocol."""
  variant = variant or 'mtnet'
  if variant not in VARIANTS:
    raise ValueError(
      f'variant {variant!r} is unknown: use one of {", ".join(VARIANTS)}'
    )
  config = _paper()
  config.variant = variant
  if variant == 'small':
    _small(config)
  if variant == 'demo':
    _demo(config)
  if variant == 'test':
    _test(config)
  return config.lock()


def _paper():
  config = ml_collections.ConfigDict()
  config.variant = 'mtnet'
  # Seed of all random numbers: parameters, order, augmentation, dropout.
  config.seed = 0

  config.dataset = ml_collections.ConfigDict()
  config.dataset.name = 'lidc_nodules/paper'
  # Used, with a warning, if the dataset was not built; '' for an error.
  config.dataset.fallback = 'lidc_nodules/phantom'
  # Where TFDS keeps datasets; '' for TFDS_DATA_DIR or ~/tensorflow_datasets.
  config.dataset.data_dir = ''
  # Fingerprint of the nodules, filled in by the run. It cannot be resumed with
  # other nodules.
  config.dataset.fingerprint = ''
  # In-plane spacing of the patches in mm, filled in by the run; 0 if each patch
  # has the spacing of its scan.
  config.dataset.spacing_mm = 0.0
  # By how many of the five folds the splits are shifted, for cross-validation:
  # 0 trains on folds 0 to 2, validates on 3 and tests on 4; 1 trains on 1 to 3,
  # validates on 4 and tests on 0.
  config.dataset.rotate_folds = 0
  # Largest number of nodules in each split; 0 for all.
  config.dataset.limit = 0

  # Side of the networks' input (3.1.2).
  config.image_size = 224
  # HU that become -1 and 1; the paper does not give them.
  config.window = (-1000.0, 400.0)
  # Views of each image per epoch: the original and nine augmentations (3.1.2).
  config.views_per_image = 10
  config.augment = ml_collections.ConfigDict()
  # Side of the square crop, as a fraction of the patch's (3.1.2).
  config.augment.crop_min = 0.5
  config.augment.crop_max = 1.0
  # Largest shift of the crop's centre, as a fraction of the patch's side minus
  # the crop's.
  config.augment.crop_shift = 0.25
  # Factor of the magnified views, and the share of the views that are (3.1.2).
  config.augment.zoom = 1.1
  config.augment.zoom_probability = 0.5
  # Probability of a horizontal flip, and of a vertical one.
  config.augment.flip_probability = 0.5

  # Compute type: 'float32' or 'bfloat16'. Parameters are float32.
  config.dtype = 'float32'
  # Precision of float32 products: 'highest' is float32; 'default' is the
  # backend's fastest, TF32 on an NVIDIA Ampere or later and bfloat16 on a TPU;
  # 'high' is between the two.
  config.matmul_precision = 'highest'
  # How the two tasks are combined: 'mtnet', or a strategy that it is compared
  # with: 'shared', 'feedback', 'serial', 'single', 'cam', 'finetune'. See
  # mtnet_jax/models/strategies.py, and configs/baselines.py for their budgets.
  config.strategy = 'mtnet'
  # The mask that Coarse Seg-net passes to the other networks: 'hard'
  # (probability >= 0.5), 'soft' (the probabilities) or 'none' (zeros).
  config.coarse_mask = 'hard'
  # Whether batch statistics are computed over all devices, not per device.
  config.sync_batch_norm = True

  # Coarse and Fine Seg-net (3.2.2): DeepLabv3+ on Xception-65. Fields as in
  # models/deeplab.py.
  config.seg_net = ml_collections.ConfigDict()
  config.seg_net.stem_widths = (32, 64)
  config.seg_net.entry_widths = (128, 256, 728)
  config.seg_net.middle_blocks = 16
  config.seg_net.exit_width = 1024
  config.seg_net.tail_widths = (1536, 1536, 2048)
  config.seg_net.aspp_features = 256
  config.seg_net.low_level_features = 48
  config.seg_net.decoder_features = 256
  config.seg_net.dropout_rates = (0.5, 0.5, 0.1)

  # Class-net (3.2.4): Xception. Fields as in models/mtnet.py.
  config.class_net = ml_collections.ConfigDict()
  config.class_net.stem_widths = (32, 64)
  config.class_net.entry_widths = (128, 256, 728)
  config.class_net.middle_blocks = 8
  config.class_net.exit_width = 1024
  config.class_net.tail_widths = (1536, 2048)
  # Dropout rate of the last features; the paper has no dropout.
  config.class_net.dropout_rate = 0.0

  # U-Net of strategy 'single'. Fields as in models/baselines.py.
  config.unet = ml_collections.ConfigDict()
  config.unet.widths = (64, 128, 256, 512, 1024)

  # A trained model to start from: a run directory, a bundle, or the name of a
  # model that comes with the package. Every stage starts from the same stage of
  # that model.
  config.start_from = ''
  # Checksum of its variables, and the dataset that they were trained on; filled
  # in by the run, which cannot be resumed with others.
  config.start_from_sha256 = ''
  config.start_from_dataset = ''

  # Public weights to start from, as `python -m mtnet_jax.pretrained` reads
  # them; '' for none. The run adds the fields that they need to the networks'
  # groups above.
  config.pretrained = ml_collections.ConfigDict()
  config.pretrained.segmentation = ''
  config.pretrained.classification = ''
  # Checksums of these files, filled in by the run, which cannot be resumed with
  # other files.
  config.pretrained.segmentation_sha256 = ''
  config.pretrained.classification_sha256 = ''

  # Equations (1) and (3), with the values of 3.2.5: the weight gamma of the
  # rank loss, K pixels of either region, and the margin between them.
  config.rank_loss = ml_collections.ConfigDict()
  config.rank_loss.weight = 0.02
  config.rank_loss.top_k = 20
  config.rank_loss.margin = 0.3
  # Upper bound of top_k that the compiled step supports; 0 for top_k itself.
  # Sweeps over top_k set it, so that all points share one program.
  config.rank_loss.max_top_k = 0

  # Weight of the pixels' mean cross-entropy in the segmentation loss; the paper
  # does not have it. In a short training without it, the mask fills some
  # patches completely, where the Dice loss has almost no gradient.
  config.cross_entropy_weight = 0.0

  # Weight of the classification loss in stages that learn both tasks.
  config.class_weight = 1.0

  # Stages to train, if the strategy has them ('mtnet' has no joint stage). See
  # mtnet_jax/models/strategies.py for the stages that each of them needs.
  config.stages = ('coarse', 'class', 'fine', 'joint')
  # Settings of each stage (3.2.5). The schedule is 'constant', or 'cosine' with
  # warm-up. A stage of 0 epochs is kept as it is in the model of start_from.
  for name, batch_size in (
    ('coarse_stage', 16),
    ('class_stage', 32),
    ('fine_stage', 16),
    ('joint_stage', 16),
  ):
    config[name] = ml_collections.ConfigDict()
    config[name].epochs = 100
    config[name].batch_size = batch_size
    config[name].learning_rate = 1e-4
    config[name].schedule = 'constant'
    # Decoupled weight decay of the kernels (AdamW); 0 for Adam.
    config[name].weight_decay = 0.0

  # Decay of a moving average of the weights, such as 0.99, which is then
  # validated and saved; 0 for no averaging.
  config.weight_average = 0.0

  # Batch size of validation and evaluation.
  config.eval_batch_size = 32
  # Training steps per call of the devices, up to 1000. 0 for as many as take a
  # quarter of a second on accelerators, and for one on CPUs. Another number is
  # another program, which may round differently.
  config.steps_per_call = 0
  # Longest time between two checkpoints. Every epoch also ends with one.
  config.checkpoint_minutes = 10.0
  # Steps between two updates of the displayed loss.
  config.log_every = 10
  return config


def _demo(config):
  """Sets phantoms and narrow networks, for minutes on two cores."""
  config.dataset.name = 'lidc_nodules/phantom'
  config.image_size = 112
  config.seg_net.stem_widths = (16, 24)
  config.seg_net.entry_widths = (32, 64, 96)
  config.seg_net.middle_blocks = 4
  config.seg_net.exit_width = 128
  config.seg_net.tail_widths = (128, 128, 192)
  config.seg_net.aspp_features = 48
  config.seg_net.low_level_features = 24
  config.seg_net.decoder_features = 48
  config.seg_net.dropout_rates = (0.1, 0.1, 0.1)
  config.class_net.stem_widths = (16, 24)
  config.class_net.entry_widths = (32, 64, 96)
  config.class_net.middle_blocks = 2
  config.class_net.exit_width = 128
  config.class_net.tail_widths = (160, 192)
  config.unet.widths = (16, 32, 64, 96, 128)
  # Size tells most about malignancy, and few epochs cannot average over crops
  # whose scales differ by a factor of two.
  config.augment.crop_min = 0.8
  config.views_per_image = 2
  config.cross_entropy_weight = 1.0
  config.weight_average = 0.99
  for name, epochs in (
    ('coarse_stage', 4),
    ('class_stage', 5),
    ('fine_stage', 3),
    ('joint_stage', 3),
  ):
    config[name].epochs = epochs
    config[name].batch_size = 16
    config[name].learning_rate = 2e-3
    config[name].schedule = 'cosine'


def _small(config):
  """Sets the demo's narrow networks on CT, and epochs that suit 400 nodules."""
  dataset = config.dataset.copy_and_resolve_references()
  _demo(config)
  config.dataset = dataset
  config.dataset.fallback = ''
  for name, epochs, batch_size in (
    ('coarse_stage', 12, 8),
    ('class_stage', 8, 16),
    ('fine_stage', 8, 8),
    ('joint_stage', 8, 8),
  ):
    config[name].epochs = epochs
    # With few nodules an epoch has few steps; smaller batches give more.
    config[name].batch_size = batch_size


def _test(config):
  """Sets a few phantoms and tiny networks, for tests and fault injection."""
  _demo(config)
  config.dataset.limit = 32
  config.image_size = 64
  config.seg_net.stem_widths = (8, 8)
  config.seg_net.entry_widths = (8, 16, 16)
  config.seg_net.middle_blocks = 1
  config.seg_net.exit_width = 16
  config.seg_net.tail_widths = (16, 16, 16)
  config.seg_net.aspp_features = 8
  config.seg_net.low_level_features = 8
  config.seg_net.decoder_features = 8
  config.class_net.stem_widths = (8, 8)
  config.class_net.entry_widths = (8, 16, 16)
  config.class_net.middle_blocks = 1
  config.class_net.exit_width = 16
  config.class_net.tail_widths = (16, 16)
  config.unet.widths = (4, 8, 8, 16, 16)
  for name in ('coarse_stage', 'class_stage', 'fine_stage', 'joint_stage'):
    config[name].epochs = 2
    config[name].batch_size = 8
  config.log_every = 1
