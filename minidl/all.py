"Everything a notebook of your own needs: `from minidl.all import *`."
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from .datasets import *
from .matmul import *
from .init import *
from .training import *
from .learner import *
from .schedule import *
from .hooks import *
from .norm import *
from .data import *
from .augment import *
from .optim import *
from .mixup import *
from .fp16 import *
from .xresnet import *
from .transfer import *
from .scale import *
from .text import *
from .awd_lstm import *
from .ulmfit import *
