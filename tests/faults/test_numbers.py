"""Numbers and data that no one meant: NaN and infinities, targets out of range, data sets of nothing or of one, a last
batch of one through batch norm, a worker that fails. What comes is a sentence, or PyTorch's error with the batch where
it happened."""
import gc
import math
import multiprocessing

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from faults_common import POSIX, in_child, samples, net_of_faults
from minidl.learner import Callback, Checkpoint, EarlyStopping, GradientClip, Learner, Recorder, TerminateOnNaN
from minidl.norm import BatchNorm
from minidl.training import DataLoaders, get_dls
from minidl.ulmfit import TextBatchNorm

BAD = [math.nan, math.inf, -math.inf]

def finite(learn): return all(t.isfinite().all() for t in learn.model.state_dict().values())

def regression(value, where, n=20, cbs=()):
    "A learner whose 10th input or target of 20 is `value`; batches of 4 in order."
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, 4, generator=g), torch.randn(n, 3, generator=g)
    dict(input=x, target=y)[where][9, 1] = value
    train, valid = ([(a, b) for a, b in zip(x.split(4), y.split(4))] for _ in range(2))
    return Learner(net_of_faults(), DataLoaders(train, valid[:2]), F.mse_loss, torch.optim.SGD, lr=0.01,
                   cbs=[Recorder(), *cbs], default_cbs=False)

@pytest.mark.parametrize('value', BAD)
@pytest.mark.parametrize('where', ['input', 'target'])
def test_a_number_that_is_none_ends_the_fit_with_the_batch_named_and_a_checkpoint_before_it(where, value, tmp_path):
    learn = regression(value, where, cbs=[TerminateOnNaN(every=1), Checkpoint(tmp_path, monitor=None, every=1)])
    with pytest.warns(UserWarning, match='not finite from epoch 0, batch 2'): learn.fit(3)
    assert len(learn.recorder.losses) == 3 and finite(learn)        # the third is the one that is none
    assert sorted(p.name for p in tmp_path.iterdir()) == ['e00000_b00000002.ckpt']

@pytest.mark.parametrize('value', BAD)
def test_without_a_guard_the_fit_ends_as_usual_and_the_record_shows_it(value, tmp_path):
    learn = regression(value, 'input', cbs=[Checkpoint(tmp_path), EarlyStopping(patience=2)])
    learn.fit(6)
    assert len(learn.recorder.rows) == 2 and not math.isfinite(learn.recorder.values[-1]['valid_loss'])
    assert not (tmp_path/'best.safetensors').exists()       # NaN is never the best

def test_clipping_does_not_hide_an_infinite_loss():
    learn = regression(math.inf, 'target', cbs=[GradientClip(1.), TerminateOnNaN(every=1)])
    with pytest.warns(UserWarning, match='batch 2'): learn.fit(1)
    assert finite(learn)

def classes(targets, **kw):
    x = torch.randn(len(targets), 4, generator=torch.Generator().manual_seed(0))
    batches = list(zip(x.split(4), torch.tensor(targets).split(4)))
    return Learner(net_of_faults(), DataLoaders(batches, batches[:1]), F.cross_entropy, progress=False, device='cpu',
                   **kw)

@pytest.mark.parametrize('bad', [3, -1, 100])
def test_a_target_out_of_range_in_the_first_batch_is_a_sentence(bad):
    learn = classes([0, 1, 2, bad, 0, 1, 2, 0])
    before = {k: t.clone() for k, t in learn.model.state_dict().items()}
    with pytest.raises(ValueError, match=f'A target is {bad}, but the model has 3 outputs, so targets go from 0 to 2'):
        learn.fit(1)
    assert all(torch.equal(t, before[k]) for k, t in learn.model.state_dict().items())

@pytest.mark.parametrize('bad', [3, -1])
def test_a_target_out_of_range_later_is_torchs_error_with_the_batch(bad):
    learn = classes([0, 1, 2, 0, 0, 1, 2, 0, 1, 2, bad, 0])
    with pytest.raises(IndexError, match='Target .* is out of bounds') as e: learn.fit(1)
    assert e.value.__notes__ == ['in training, epoch 0, batch 2'] and not learn.fitting

def test_a_data_set_of_nothing_is_a_sentence_everywhere():
    nothing = TensorDataset(torch.zeros(0, 4), torch.zeros(0).long())
    for train, valid, which in (nothing, samples(4), 'training'), (samples(4), nothing, 'validation'):
        with pytest.raises(ValueError, match=f'The {which} data set is empty'): get_dls(train, valid)
    for dls in DataLoaders([], None), DataLoaders([(torch.zeros(2, 4), torch.zeros(2).long())], []):
        with pytest.raises(ValueError, match='gave no batches. Is the data set empty or smaller than a batch'):
            Learner(net_of_faults(), dls, F.cross_entropy, default_cbs=False).fit(1)

def test_a_batch_without_samples_does_not_pass_for_one():
    batch = torch.zeros(0, 4), torch.zeros(0).long()
    with pytest.warns(UserWarning, match='not finite from epoch 0, batch 0'):
        Learner(net_of_faults(), DataLoaders([batch]), F.cross_entropy, cbs=[Recorder(), TerminateOnNaN(1)],
                default_cbs=False).fit(1)

def test_a_data_set_of_one_trains_validates_and_predicts():
    one = samples(1)
    learn = Learner(net_of_faults(), get_dls(one, one, bs=64), F.cross_entropy, progress=False, device='cpu').fit(2)
    assert len(learn.recorder.losses) == 2 and learn.get_preds()[0].shape == (1, 3)
    assert math.isfinite(learn.validate()['loss'])


# ---- a last batch of one through batch norm

def normed(norm=nn.BatchNorm1d):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), norm(8), nn.ReLU(), nn.Linear(8, 3))

def of_batches(n, drop_last=False, norm=nn.BatchNorm1d):
    # a last batch of one in validation too
    dls = get_dls(samples(n), samples(5, 1), bs=4, valid_bs=4, drop_last=drop_last)
    return Learner(normed(norm), dls, F.cross_entropy, cbs=Recorder(), default_cbs=False)

@pytest.mark.parametrize('norm', [nn.BatchNorm1d, BatchNorm])
def test_a_last_batch_of_one_through_batch_norm_is_an_error_with_the_batch(norm):
    learn = of_batches(9, norm=norm)
    with pytest.raises(ValueError, match='(?i)(more than 1|more than one|single|one) ') as e: learn.fit(1)
    assert e.value.__notes__[-1] == 'in training, epoch 0, batch 2' and not learn.fitting

@pytest.mark.parametrize('norm', [nn.BatchNorm1d, BatchNorm])
def test_drop_last_leaves_the_last_batch_of_one_out(norm):
    learn = of_batches(9, drop_last=True, norm=norm).fit(2)
    assert len(learn.recorder.losses) == 4 and math.isfinite(learn.recorder.values[-1]['valid_loss'])

def test_the_text_classifiers_batch_norm_takes_a_last_batch_of_one():
    learn = of_batches(9, norm=TextBatchNorm).fit(2)
    assert len(learn.recorder.losses) == 6 and finite(learn)


# ---- a worker that fails

class Broken(Exception): pass

class Fails(Dataset):
    "Item 13 cannot be fetched while `on`."
    on = True
    def __len__(self): return 20
    def __getitem__(self, i):
        if i == 13 and self.on: raise Broken('item 13 is broken')
        return torch.full((4,), float(i)), i % 3

def fit_with_a_failing_worker(pipe, num_workers):
    learn = Learner(net_of_faults(), get_dls(Fails(), bs=4, num_workers=num_workers), F.cross_entropy, cbs=Recorder(),
                    default_cbs=False)
    ended = []
    class End(Callback):
        def after_fit(self, learn): ended.append(learn.epoch)
    try: learn.fit(1, cbs=End())
    except Broken as e: said = str(e), e.__notes__
    assert 'item 13 is broken' in said[0]
    assert 'in training, epoch 0, batch' in said[1][-1] and ended == [0] and not learn.fitting
    learn.dls.train.dataset.on = False
    learn.fit(1)
    assert len(learn.recorder.losses) == 5
    gc.collect()
    assert not multiprocessing.active_children()

@POSIX
@pytest.mark.parametrize('num_workers', [0, 1])
def test_a_worker_that_raises_ends_the_fit_with_its_error_and_the_next_fit_works(num_workers):
    in_child(fit_with_a_failing_worker, num_workers)
