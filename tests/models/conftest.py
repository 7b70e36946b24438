"""Tiny networks of MT-Net and their variables, which tests must not modify."""

import pytest
import tiny_nets

from mtnet_jax.models import mtnet


@pytest.fixture(scope='module')
def coarse():
  net = mtnet.CoarseSegNet(**tiny_nets.TINY_SEG)
  return net, tiny_nets.init(net, (32, 32))


@pytest.fixture(scope='module')
def fine():
  net = mtnet.FineSegNet(**tiny_nets.TINY_SEG)
  return net, tiny_nets.init(net, (32, 32))


@pytest.fixture(scope='module')
def class_net():
  net = mtnet.ClassNet(**tiny_nets.TINY_CLASS)
  return net, tiny_nets.init(net, (64, 64))
