"Right and wrong answers to the exercises of chapter 05."
import torch

from minidl.learner import Callback, CancelBatch


class CountSamples(Callback):
    n = 0
    def before_fit(self, learn): self.n = 0
    def after_batch(self, learn):
        if learn.training: self.n += len(learn.yb)

class CountsBatches(CountSamples):
    def after_batch(self, learn): self.n += learn.training
class CountsValidation(CountSamples):
    def after_batch(self, learn): self.n += len(learn.yb)
class NeverResets(CountSamples):
    def before_fit(self, learn): pass
class LastEpoch(CountSamples):
    def before_epoch(self, learn): self.n = 0
class FullBatches(CountSamples):
    def before_fit(self, learn): self.n, self.bs = 0, len(learn.dls.train[0][1])
    def after_batch(self, learn):
        if learn.training: self.n += self.bs
class NoCallback:
    n = 0


class GradientNoise(Callback):
    def __init__(self, std): self.std = std
    def after_backward(self, learn):
        for p in learn.model.parameters():
            if p.grad is not None: p.grad += self.std*torch.randn_like(p.grad)

class Multiplies(GradientNoise):
    def after_backward(self, learn):
        for p in learn.model.parameters(): p.grad *= self.std
class TooLate(GradientNoise):
    def after_backward(self, learn): pass
    def after_step(self, learn): super().after_backward(learn)
class Uniform(GradientNoise):
    def after_backward(self, learn):
        for p in learn.model.parameters():
            if p.grad is not None: p.grad += self.std*torch.rand_like(p.grad)
class Variance(GradientNoise):
    def after_backward(self, learn):
        for p in learn.model.parameters():
            if p.grad is not None: p.grad += self.std**0.5*torch.randn_like(p.grad)
class AllHaveGradients(GradientNoise):
    def after_backward(self, learn):
        for p in learn.model.parameters(): p.grad += self.std*torch.randn_like(p.grad)
class OnWeights(GradientNoise):
    def before_batch(self, learn):
        with torch.no_grad():
            for p in learn.model.parameters(): p += 0.01


class MedianAbsoluteError:
    def __init__(self): self.reset()
    def reset(self): self.errors = []
    def update(self, pred, targ):
        if pred.shape != targ.shape: raise ValueError(f'pred has shape {tuple(pred.shape)}, targ {tuple(targ.shape)}.')
        self.errors.append((pred.detach() - targ).abs().flatten())
    def compute(self): return torch.cat(self.errors).median()

class MeanOfMedians(MedianAbsoluteError):
    def compute(self): return torch.stack([e.median() for e in self.errors]).mean()
class MedianOfMedians(MedianAbsoluteError):
    def compute(self): return torch.stack([e.median() for e in self.errors]).median()
class MeanError(MedianAbsoluteError):
    def compute(self): return torch.cat(self.errors).mean()
class NeverForgets(MedianAbsoluteError):
    def __init__(self): self.errors = []
    def reset(self): pass
class Broadcasts(MedianAbsoluteError):
    def update(self, pred, targ): self.errors.append((pred.detach() - targ).abs().flatten())
class KeepsGraphs(MedianAbsoluteError):
    def update(self, pred, targ): self.errors.append((pred - targ).abs().flatten())
class Signed(MedianAbsoluteError):
    def update(self, pred, targ): self.errors.append((pred - targ).flatten())
class NoReset:
    def update(self, pred, targ): pass
    def compute(self): return 0.


class OverfitOneBatch(Callback):
    def before_fit(self, learn): self.batch = None
    def before_batch(self, learn):
        if not learn.training: return
        if self.batch is None: self.batch = learn.xb, learn.yb
        learn.xb, learn.yb = self.batch

class OnlyInputs(OverfitOneBatch):
    def before_batch(self, learn):
        if not learn.training: return
        if self.batch is None: self.batch = learn.xb
        learn.xb = self.batch
class ValidationToo(OverfitOneBatch):
    def before_batch(self, learn):
        if self.batch is None: self.batch = learn.xb, learn.yb
        learn.xb, learn.yb = self.batch
class FirstOfTheEpoch(OverfitOneBatch):
    def before_batch(self, learn):
        if learn.training and learn.iter: raise CancelBatch
class ForEver(OverfitOneBatch):
    batch = None
    def before_fit(self, learn): pass
class LastBatch(OverfitOneBatch):
    def before_fit(self, learn): self.batch = learn.dls.train[-1]
class TooLateForTheModel(OverfitOneBatch):
    def before_batch(self, learn): pass
    def after_batch(self, learn): OverfitOneBatch.before_batch(self, learn)


right = {'05.1': CountSamples, '05.2': GradientNoise, '05.3': MedianAbsoluteError, '05.4': OverfitOneBatch}
wrong = {
    '05.1': {'one epoch, the last batch with two samples: gives': (CountsBatches, CountsValidation, FullBatches),
             'a fit of three epochs after it: gives 88': NeverResets,
             'a fit of three epochs after it: gives 22': LastEpoch,
             'a subclass of Callback': NoCallback},
    '05.2': {'std 0 changes nothing: the values differ': (Multiplies, OnWeights),
             'the weights are those without noise': TooLate,
             'the noise has mean': Uniform, 'the noise has std': Variance, 'raises TypeError': AllHaveGradients},
    '05.3': {'four batches, the last of one sample: the value': (MeanOfMedians, MedianOfMedians),
             'one batch: the value': (MeanError, Signed),
             'after a reset: the value': NeverForgets, 'would broadcast': Broadcasts,
             'hold on to their graphs': KeepsGraphs,
             'no method `reset`': NoReset},
    '05.4': {'other targets than the first': OnlyInputs, 'not those of the validation loader': ValidationToo,
             '3 training batches in 3 epochs': FirstOfTheEpoch,
             'still trains on the batch of the first': ForEver,
             'other inputs than the first': (LastBatch, TooLateForTheModel)},
}
