"""The text samples: film reviews as in IMDb and wiki-like articles as in WikiText, both from the grammar in text_grammar.txt.

`make_imdb(folder, seed)` and `make_wikitext(folder, seed)` write them. What makes the second one worth having: the probability that the
grammar gives to the next word after any beginning of a text can be computed exactly (`surprisals`), and with it the perplexity
that no language model can beat. Needs nothing but Python.
"""
import html, json, math, random, re
from bisect import bisect
from itertools import accumulate
from pathlib import Path

HERE = Path(__file__).resolve().parent
EOL = '<eos>'  # a line's end counts as a token, as language models count it
ANY = None     # a first word that depends on the facts


# The grammar

TOKEN = re.compile(r'[\[|\]]|\{[^}]*\}|[^\s\[|\]{}]+')
REF = re.compile(r'(a |~)?(\w+)(?:@(\w+))?(\+s)?')
LOOKUP = re.compile(r'(\w+)\.(\w+)')
LATER = re.compile(r'(\w+)\+(\d+)\.\.(\d+)')
AN = re.compile(r'(?!unif|univ|uniq|one-|eu)[aeiou]|hon', re.I)
SHE = {'he': 'she', 'his': 'her', 'him': 'her'}


class Rule:
    "What a name stands for: some sequences of items, each with its probability."
    def __init__(self, weights, options):
        self.options, self.cumulative = options, list(accumulate(weights))
        self.probs = [w/self.cumulative[-1] for w in weights]
        self.by_word = None

    def draw(self, rng): return self.options[bisect(self.cumulative, rng.random()*self.cumulative[-1], hi=len(self.options) - 1)]

    def index(self, first_words):
        "Sort the options by the words they can begin with, so that `starting_with` need not try them all."
        self.by_word = {}
        for p, option in zip(self.probs, self.options):
            for word in first_words(option) or (ANY,): self.by_word.setdefault(word, []).append((p, option))

    def starting_with(self, words):
        "The options, with their probabilities, that may begin with one of `words`; all of them where `words` is empty."
        if not words or not self.by_word: return zip(self.probs, self.options)
        return [pair for word in (*words, ANY) for pair in self.by_word.get(word, ())]


def years(first, last): return Rule([1]*(last - first + 1), [(str(y),) for y in range(first, last + 1)])


def only(*items): return Rule([1], [items])


class Grammar:
    """A context-free grammar with a memory.

    A text in the making is a stack of items yet to be said and a dict of facts said before. An item is a string: a plain word,
    a reference `{...}` that `rule` looks up, or a note to the memory `{!...}` that `note` carries out.
    """
    def __init__(self, path=HERE/'text_grammar.txt'):
        blocks = {}
        for line in path.read_text(encoding='utf8').splitlines():
            if not line.strip() or line.startswith('#'): continue
            if header := re.match(r'(\w+)( [=>]|:)', line): block = blocks[header[1]] = [header[2], line[header.end():]]
            else: block.append(line)
        self.kinds = dict(pair.split('=') for pair in ' '.join(blocks.pop('facts')[1:]).split())
        words = {name: ' '.join(lines).split() for name, (kind, *lines) in blocks.items() if kind != ':'}
        for name, n in ('last', 300), ('town', 130): words[name] = compounds(words.pop(f'{name}_head'), words.pop(f'{name}_tail'), n)
        for name in 'job', 'thing', 'place', 'mood': words[f'{name}_any'] = [w for genre in words['genre'] for w in words[f'{name}_{genre}']]
        self.women, self.county = set(words['first_f']), {t: words['county'][i % 10] for i, t in enumerate(words['town'])}
        self.rules = {}
        for name, ws in words.items():
            flat = 1 if blocks.get(name, '=')[0] == ' >' else 5
            self.rules[name] = Rule([1/(i + flat) for i in range(len(ws))], [tuple(w.split('_')) for w in ws])
        self.rules |= {'year': years(1921, 1989), 'birth_year': years(1880, 1956)}
        for name, (kind, *lines) in blocks.items():
            if kind == ':': self.rules[name] = self.read_templates(lines)
        for rule in self.rules.values(): rule.index(self.first_words)

    def read_templates(self, lines):
        weights, options = [], []
        for line in filter(str.strip, lines):
            weight, line = re.match(r'\s*(?:(\d+) \* )?(.*)', line).groups()
            weights.append(int(weight or 1))
            options += self.read_template(iter(TOKEN.findall(line)))
        return Rule(weights, options)

    def read_template(self, tokens):
        "The alternatives up to the bracket that closes them; each [a|b|c] inside becomes a rule of its own."
        options = [()]
        for token in tokens:
            if token == ']': break
            if token == '|': options.append(()); continue
            if token == '[':
                inner, token = self.read_template(tokens), f'{{choice{len(self.rules)}}}'
                self.rules[token[1:-1]] = Rule([1]*len(inner), inner)
            if token.startswith('{^'): options[-1] += ('{!capital}', '{' + token[2:])
            else: options[-1] += (EOL if token == '¶' else token,)
        return options

    def first_words(self, option):
        "The words that a sequence of items can begin with; None where that depends on the facts or it may be empty."
        if not option: return None
        if option[0][0] != '{': return {option[0]}
        if option[0].startswith('{a '): return {'a', 'an'}
        if option[0][1:-1] not in self.rules: return None
        words = [self.first_words(o) for o in self.rules[option[0][1:-1]].options]
        return None if None in words else set().union(*words)

    def rule(self, item, facts):
        "What the reference `item` stands for where these facts are known."
        name = item[1:-1]
        if name in self.rules: return self.rules[name]
        if name[0] == '@': return self.recall(name[1:], facts)
        if m := LOOKUP.fullmatch(name): return only(*self.attribute(facts[m[1]], m[2]))
        if m := LATER.fullmatch(name): return years(*(int(facts[m[1]][0]) + int(n) for n in m.groups()[1:]))
        how, name, fact, plural = REF.fullmatch(name).groups(default='')
        if fact: name += '_' + facts.get(fact, [fact])[0]
        if how == '~': return self.unused(name, facts)
        if how == 'a ' and how + name not in self.rules: self.add_article(name)
        if plural and name + plural not in self.rules: self.add_plural(name)
        return self.rules[how + name + plural]

    def add_article(self, name):
        "The rule `a name`: first whether it is a or an, then which of the words that take it."
        rule, parts = self.rules[name], {'a': [], 'an': []}
        for p, option in zip(rule.probs, rule.options): parts['an' if AN.match(option[0]) else 'a'].append((p, option))
        parts = {article: pairs for article, pairs in parts.items() if pairs}
        for article, pairs in parts.items(): self.add(f'{article}-{name}', Rule(*zip(*pairs)))
        self.add(f'a {name}', Rule([sum(p for p, _ in pairs) for pairs in parts.values()], [(a, f'{{{a}-{name}}}') for a in parts]))

    def add_plural(self, name):
        rule = self.rules[name]
        self.add(f'{name}+s', Rule(rule.probs, [(*o[:-1], with_s(o[-1])) for o in rule.options]))

    def add(self, name, rule):
        self.rules[name] = rule
        rule.index(self.first_words)

    def unused(self, name, facts):
        "The options that this text has not used yet (or all, once all are used); the one that is drawn leaves a note."
        rule = self.rules[name]
        left = [i for i in range(len(rule.options)) if (name, i) not in facts.get('used', ())] or range(len(rule.options))
        return Rule([rule.probs[i] for i in left], [(f'{{!used {name} {i}}}', *rule.options[i]) for i in left])

    def recall(self, fact, facts):
        "A fact: drawn and remembered the first time, repeated from then on, persons by their surname."
        if fact not in facts: return only('{!open}', f'{{{self.kinds[fact]}}}', f'{{!close {fact}}}')
        return only(*(facts[fact][-1:] if self.kinds[fact] == 'person' else facts[fact]))

    def attribute(self, value, name):
        if name == 'full': return value
        if name == 'county': return (self.county[value[0]],)
        return (SHE[name] if value[0] in self.women else name,)

    def note(self, item, facts):
        "The facts after a note to the memory. Never changed in place: other readings of the same text share them."
        match item[2:-1].split():
            case ['new']: return {}
            case ['used', name, i]: return {**facts, 'used': facts.get('used', frozenset()) | {(name, int(i))}}
            case ['capital']: return {**facts, 'capital': True}
            case ['open']: return {**facts, 'open': ()}
            case ['close', fact]: return {k: v for k, v in facts.items() if k != 'open'} | {fact: facts['open']}

    def say(
        self,
        rng:random.Random,
        item:str,      # what to say, '{article}'
        facts:dict={}, # what has been said before: name -> words
    ):                 # the words; the facts after them
        "Draw a text from the top down."
        words, stack = [], [item]
        while stack:
            item = stack.pop()
            if item.startswith('{!'): facts = self.note(item, facts)
            elif item[0] == '{': stack += reversed(self.rule(item, facts).draw(rng))
            else:
                words.append(shown(item, facts))
                facts = remember(facts, item)
        return words, facts


def with_s(word):
    if word.endswith(('s', 'sh', 'ch', 'x')): return word + 'es'
    return word[:-1] + 'ies' if word[-1] == 'y' and word[-2] not in 'aeo' else word + 's'


def shown(item, facts): return item[0].upper() + item[1:] if 'capital' in facts else item


def remember(facts, item):
    "The facts after the word `item`."
    if 'capital' in facts: facts = {k: v for k, v in facts.items() if k != 'capital'}
    return {**facts, 'open': (*facts['open'], item)} if 'open' in facts else facts


def compounds(heads, tails, n):
    "The first n of all heads and tails put together, in an order that never changes: the world is the same for every seed."
    names = {head + tail: None for head in heads for tail in tails if head[-1] != tail[0]}
    rng = random.Random(n)
    return sorted(names, key=lambda name: rng.random())[:n]


# How probable the next word is

def next_words(
    grammar:Grammar,
    readings:list,   # (probability, stack, facts) of every way to read the text so far
    word:str|None,   # look for this word only; None: for every word
)->dict:             # word -> readings of the text with that word, not normalized
    "Expand what is on top of each stack until every reading has a word there."
    plain = (word,) if word else ()
    capitalized = tuple({word: 1, word[0].lower() + word[1:]: 1}) if word else ()
    found, todo = {}, list(readings)
    while todo:
        p, (item, *rest), facts = todo.pop()
        if item.startswith('{!'): todo.append((p, rest, grammar.note(item, facts)))
        elif item[0] == '{':
            options = grammar.rule(item, facts).starting_with(capitalized if 'capital' in facts else plain)
            todo += ((p*q, (*option, *rest), facts) for q, option in options)
        elif word in (None, shown(item, facts)): found.setdefault(shown(item, facts), []).append((p, rest, remember(facts, item)))
    return found


def surprisals(
    grammar:Grammar,
    words:list,      # a text from its beginning, as `tokenize` gives it
):                   # yields -log p(word | all words before it) for each word, in nats
    """Read a text from left to right, with no knowledge of how it was made.

    Every way in which the grammar can have come to the words so far is kept, with its probability given these words; so the sum over
    them is the exact probability of the next word given its whole past, and nothing that is hidden from a reader helps.
    """
    readings = [(1., ('{text}',), {})]
    for i, word in enumerate(words):
        found = next_words(grammar, readings, word).get(word)
        if not found: raise ValueError(f'The grammar cannot say {word!r} after {" ".join(words[max(0, i - 12):i])!r}.')
        total = sum(p for p, _, _ in found)
        yield -math.log(total)
        merged = {}
        for p, stack, facts in found:
            key = (tuple(stack), frozenset(facts.items())) if len(found) > 1 else None
            merged[key] = merged.get(key, (0,))[0] + p/total, stack, facts
        readings = list(merged.values())


# wikitext

def render(words):
    "The layout of WikiText: a space at both ends of a line, empty lines around headings."
    lines = ' '.join(words).split(f' {EOL}')
    heading = lambda line: line.strip().startswith('=')
    return ''.join(f' \n {line.strip()} \n \n' if heading(line) else f' {line.strip()} \n' for line in lines if line.strip())


def tokenize(text):
    "The words of each line that is not empty, and its end."
    return [token for line in text.splitlines() if line.strip() for token in (*line.split(), EOL)]


def make_articles(grammar, rng, n_tokens):
    "Whole articles, `n_tokens` or a little more together."
    words = []
    while len(words) < n_tokens: words += grammar.say(rng, '{article}')[0]
    return words


def make_wikitext(
    folder:Path,  # wikitext/ is made here
    seed:int,     # the same seed, the same bytes
    n_train:int=170_000, n_test:int=20_000,  # tokens, as `tokenize` counts them
):
    "Write train.txt, test.txt, and in entropy.json the entropy of the source that they come from."
    folder = folder/'wikitext'
    folder.mkdir(parents=True, exist_ok=True)
    grammar, nats = Grammar(), {}
    for part, n_tokens, n_scored in ('train', n_train, 60_000), ('test', n_test, n_test*2):
        words = make_articles(grammar, random.Random(f'wikitext {part} {seed}'), n_tokens)
        write(folder/f'{part}.txt', render(words))
        nats[part] = list(surprisals(grammar, words[:n_scored]))
        if part == 'train': n_train = len(words)
    write(folder/'entropy.json', json.dumps(entropy_report(n_train, **nats), indent=2) + '\n')


def entropy_report(n_train, train, test):
    mean = math.fsum(test)/len(test)
    both = train + test
    # Neighboring tokens depend on each other, articles hardly: blocks of a thousand tokens give an honest standard error.
    blocks = [math.fsum(both[i:i + 1000])/1000 for i in range(0, len(both) - 999, 1000)]
    source = math.fsum(both)/len(both)
    error = math.sqrt(math.fsum((b - source)**2 for b in blocks)/(len(blocks)*(len(blocks) - 1)))
    return {
        'tokens_train': n_train, 'tokens_test': len(test),
        'entropy_nats_per_token': round(mean, 6), 'perplexity': round(math.exp(mean), 4), 'nats_test': round(math.fsum(test), 3),
        'source_nats_per_token': round(source, 4), 'source_standard_error': round(error, 4), 'source_perplexity': round(math.exp(source), 3),
        'tokens': f'the words of each line that is not empty, split at blanks, and {EOL} for the end of that line',
        'how': 'entropy_nats_per_token is the mean of -log p(token | all tokens before it) over test.txt, in nats, where p is the exact probability under '
               'the grammar that wrote the text (surprisals in data/text_samples.py recomputes it from the text alone); perplexity is its exponential. '
               'No model can expect to do better. It is exact for this file; source_nats_per_token is the same mean over the test file and the '
               'beginning of the training file, an estimate of the expected value for any text from this source. A model with other tokens, if '
               'nothing is lost in making them, is held against nats_test divided by the number of its tokens in test.txt.',
    }


# imdb

OPPOSITE = {'good': 'bad', 'bad': 'good'}


def make_imdb(
    folder:Path,  # imdb/ is made here
    seed:int,     # the same seed, the same bytes
    n_train:int=1200, n_test:int=400, n_unsup:int=800,  # reviews, half of them good
):
    "Write reviews as the IMDb data set has them: train and test in pos and neg, and unsup; each file named <number>_<rating>.txt."
    grammar, rng = Grammar(), random.Random(f'imdb {seed}')
    for part, n in ('train', n_train), ('test', n_test), ('unsup', n_unsup):
        numbers = list(range(n*10))
        for i in range(n):
            side = 'good' if i % 2 else 'bad'
            text, rating = review(grammar, rng, side)
            where = folder/'imdb'/part if part == 'unsup' else folder/'imdb'/part/{'good': 'pos', 'bad': 'neg'}[side]
            where.mkdir(parents=True, exist_ok=True)
            number = numbers.pop(int(rng.random()*len(numbers)))
            write(where/f'{number}_{0 if part == "unsup" else rating}.txt', text)


def chance(rng, p): return rng.random() < p
def pick(rng, xs): return xs[int(rng.random()*len(xs))]


def review(grammar, rng, side):
    "The text of a review that thinks the film good or bad, and its rating."
    while True:
        sentences, rating = say_review(grammar, rng, side)
        text = soil(layout(sentences, rng), rng)
        if 40 <= len(text.split()) <= 250: return text, rating


def say_review(grammar, rng, side):
    """The sentences of a review: an opening, opinions among retelling and asides, an ending.

    What tells the side is the whole of an opinion and not its words: `agree` says it with words of this side, `deny` by turning down
    a word of the other side, `both` with one of each. A few opinions concede a point to the other side.
    """
    facts = {'genre': pick(rng, grammar.rules['genre'].options), 'side': (side,), 'other': (OPPOSITE[side],)}
    sentences, n_words, n_opinions, n_conceded = [], 0, 0, 0
    target = min(210, 40*math.exp(rng.expovariate(1.9)))  # words

    def say(rule, conceding=False):
        nonlocal facts, n_words
        if conceding: facts |= {'side': (OPPOSITE[side],), 'other': (side,)}
        words, facts = grammar.say(rng, f'{{~{rule}}}', facts)
        facts |= {'side': (side,), 'other': (OPPOSITE[side],)}
        sentences.append(words)
        n_words += len(words)

    say('opening')
    while n_words < target or n_opinions < 6:
        u = rng.random()
        if u < 0.75:
            conceding = n_opinions > 2*n_conceded + 1 and chance(rng, 0.05)
            say(pick(rng, FRAMES), conceding)
            n_opinions += 1
            n_conceded += conceding
        else: say('retell' if u < 0.92 else 'aside')
    if chance(rng, 0.6): say(pick(rng, ['closing', 'closing', f'closing_{side}']))
    mild = n_conceded + chance(rng, 0.5)  # the more conceded, the nearer to the middle
    return sentences, max(7, 10 - mild) if side == 'good' else min(4, 1 + mild)


FRAMES = ['agree']*7 + ['deny']*4 + ['both']*8


# What real reviews look like

def layout(sentences, rng):
    "Words to sentences with capitals, sentences to paragraphs."
    contract, paragraphs = chance(rng, 0.6), [[]]
    for words in sentences:
        text = ' '.join(words)
        text = re.sub(r'(^|[.?!] )(\S)', lambda m: m[1] + m[2].upper(), text)
        if contract: text = re.sub(r'\b(is|are|was|do|does|did|would|could) not\b', r"\1n't", text).replace('can not', "can't")
        text = re.sub(r" ([,.;:?!)]|'s\b)", r'\1', text).replace('( ', '(').replace('can not', 'cannot')
        if len(paragraphs[-1]) > 2 and chance(rng, 0.3): paragraphs.append([])
        paragraphs[-1].append(text)
    br = pick(rng, ['<br /><br />']*8 + ['<br /><br /> ', ' <br /><br />', '<br />'])
    return br.join(' '.join(p) for p in paragraphs)


STRETCH = {'so': 'so{}', 'very': 've{}ry', 'really': 're{}ally', 'no': 'no{}', 'long': 'lo{}ng', 'never': 'ne{}ver', 'bad': 'ba{}d', 'good': 'go{}d'}
ENTITIES = {'"': ['&quot;', 'quot;'], "'": ['&#39;', '#39;', '&#146;'], ' and ': [' &amp; ', ' amp; '], ' ': ['&nbsp;', ' nbsp;']}


def soil(text, rng):
    "The dirt of real reviews, of which cleaning rules are made. None of it says what the review thinks."
    def one(pattern, repl, p):
        "Replace one random match of the pattern, with probability p."
        nonlocal text
        if chance(rng, p) and (found := list(re.finditer(pattern, text))):
            m = pick(rng, found)
            text = text[:m.start()] + (repl(m) if callable(repl) else m.expand(repl)) + text[m.end():]

    one(r'\b(so|very|really|truly|absolutely|quite)\b', lambda m: ' '.join([m[0]]*(2 + int(3*rng.random()))), 0.12)
    one(rf'\b({"|".join(STRETCH)})\b', lambda m: STRETCH[m[0]].format((m[0][1] if len(m[0]) < 5 else 'e')*(3 + int(6*rng.random()))), 0.12)
    one(r'\b\w{3,}\b', lambda m: m[0].upper(), 0.2)                       # SHOUTING
    one(r'(?<=[.!?] )[^.!?<>]{15,80}(?=[.!?])', lambda m: m[0].upper(), 0.08)
    one(r'[.!](?= |$)', lambda m: pick(rng, '!?.')*(2 + int(6*rng.random())), 0.2)
    one(r'(?<=\w)\. (?=[A-Z])', '.', 0.12)                                # no space after a full stop
    one(r' ', '  ', 0.15)
    one(r',', ' ,', 0.08)
    one(r'\b[a-z]{6,}\b', lambda m: m[0][:2] + m[0][3] + m[0][2] + m[0][4:], 0.1)  # letters swapped
    one(r'\bI\b', 'i', 0.06)
    one(r"n't\b", 'nt', 0.08)
    one(r' (out of|/) 10\b', '/10', 0.7)
    one(r'# (?=\d)', '#', 0.6)
    one(r'\.$', pick(rng, [' :)', '...', '.  ', ' *****', ' (sigh)']), 0.08)
    for char, ways in ENTITIES.items():
        if chance(rng, 0.03): text = text.replace(char, pick(rng, ways), 3)
    return text


def write(path, text):
    with open(path, 'w', encoding='utf8', newline='\n') as f: f.write(text)
