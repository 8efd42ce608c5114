// Draws the report from the data blocks of its page. Nothing is fetched, and
// text enters only as text nodes, so that no token can become markup.
'use strict';

const INDEX = JSON.parse(byId('index').textContent);
const NONE = INDEX.vocabulary.length; // the token that is not there
const ROW = 36; // pixels, the height of .row in report.css
const PER_DECADE = 5; // bars of the density histogram

// What is in view: sae, its decoded data, a latent, the order of the list, the
// search, and how each latent answers it. The turn counts navigations, so that
// a slow one overtakes no later one.
const view = {order: [], query: '', ranks: [], turn: 0};

// ---- Nodes ----

// An element; strings among its children become text, never markup.
function html(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  Object.entries(attributes).forEach((pair) => node.setAttribute(...pair));
  node.append(...children);
  return node;
}

function byId(id) {
  return document.getElementById(id);
}

function number(value) {
  const size = Math.abs(value);
  const text = size === 0 ? '0' : size < 1e-3 ? value.toExponential(1)
    : size < 100 ? value.toPrecision(3) : value.toFixed(0);
  return text.replace('-', '−');
}

function percent(share) {
  return `${Number((100 * share).toPrecision(2))}%`;
}

// A name without characters that are not seen or turn others around.
function plain(name) {
  return name.replace(/[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu, codePoint);
}

function codePoint(character) {
  const digits = character.codePointAt(0).toString(16).toUpperCase();
  return `U+${digits.padStart(4, '0')}`;
}

function times(count, noun) {
  return `${count.toLocaleString('en')} ${noun}${count === 1 ? '' : 's'}`;
}

// ---- Data ----

const TYPES = {
  f4: Float32Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array,
};

function load(sae) {
  sae.loading ??= decode(sae);
  return sae.loading;
}

async function decode(sae) {
  const text = atob(byId(`block-${INDEX.saes.indexOf(sae)}`).textContent);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream();
  const open = stream.pipeThrough(new DecompressionStream('gzip'));
  const buffer = await new Response(open).arrayBuffer();
  const data = {sae, shape: {}};
  for (const [name, [type, start, shape]] of Object.entries(sae.layout)) {
    const length = shape.reduce((a, b) => a * b, 1);
    data[name] = new TYPES[type](buffer, start, length);
    data.shape[name] = shape;
  }
  data.latents = [...data.density.keys()];
  data.fires = data.latents.map((latent) => peakTokens(data, latent));
  data.interest = data.latents.map((latent) => interest(data, latent));
  return data;
}

// The part of a block's array that belongs to one latent.
function row(data, name, latent) {
  const size = data.shape[name].slice(1).reduce((a, b) => a * b, 1);
  return data[name].subarray(latent * size, (latent + 1) * size);
}

// The distinct strongest tokens of a latent's top contexts, commonest first.
function peakTokens(data, latent) {
  const width = data.shape.tokens[2];
  const tokens = row(data, 'tokens', latent);
  const tally = new Map();
  row(data, 'peak', latent).forEach((peak, k) => {
    const token = tokens[k * width + peak];
    if (k < data.top[latent]) tally.set(token, (tally.get(token) ?? 0) + 1);
  });
  return [...tally].sort((a, b) => b[1] - a[1]).map(([token]) => token);
}

// What the page says of interesting latents. Being one weighs more than any
// effect on the next token.
function interest(data, latent) {
  const share = data.density[latent];
  const isRare = share >= 1e-4 && share <= 1e-2;
  const isInteresting = isRare && isOfWords(data, latent)
    && new Set(topDocuments(data, latent)).size >= 3;
  const effect = row(data, 'promotedValues', latent)[0] ?? 0;
  return effect + (isInteresting ? 1e9 : 0);
}

function topDocuments(data, latent) {
  return row(data, 'document', latent).subarray(0, data.top[latent]);
}

// Whether most of the top contexts are strongest on a token with a letter.
function isOfWords(data, latent) {
  const width = data.shape.tokens[2];
  const tokens = row(data, 'tokens', latent);
  const peaks = row(data, 'peak', latent).subarray(0, data.top[latent]);
  const words = peaks.reduce(
    (sum, peak, k) => sum + (WORDS[tokens[k * width + peak]] ? 1 : 0), 0);
  return 2 * words > peaks.length;
}

// ---- Tokens ----

// A text as a search compares it: in lower case, accents apart from letters,
// as they may be tokens of their own.
function folded(text) {
  return text.normalize('NFD').toLowerCase();
}

const FOLDED = INDEX.vocabulary.map(folded);
const WORDS = INDEX.vocabulary.map((text) => /\p{L}/u.test(text));

// What would print nothing: in running text a single space may, and what joins
// two pictures to one is seen in that one.
const PICTURE = '\\p{Extended_Pictographic}[\\uFE0F\\u{1F3FB}-\\u{1F3FF}]*';
const JOINER = `(?<=${PICTURE})\\u200D(?=\\p{Extended_Pictographic})`;
const UNSEEN = `(?! |${JOINER})[\\p{Cc}\\p{Cf}\\p{Cs}\\p{Z}]`;
const IN_TEXT = new RegExp(`(${UNSEEN}| {2,})`, 'u');
const ALONE = new RegExp(`(${UNSEEN}| +)`, 'u');

// A text as nodes, with faint marks for what is unseen.
function visible(text, unseen) {
  return (text || '∅').split(unseen).map((part, i) => i % 2 === 0 ? part
    : html('i', {class: part === '\n' ? 'mark break' : 'mark'}, mark(part)));
}

function mark(part) {
  const code = part.codePointAt(0);
  if (part === '\n') return '⏎';
  if (part === '\t') return '⇥';
  if (part[0] === ' ') return '·'.repeat(part.length);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  return codePoint(part);
}

function chip(token) {
  const kind = isHit(token) ? 'chip hit' : 'chip';
  const text = INDEX.vocabulary[token];
  return html('bdi', {class: kind}, ...visible(text, ALONE));
}

function isHit(token) {
  return view.query && (FOLDED[token] ?? '').includes(view.query);
}

// What only completes the character before it: an accent, a skin tone, or what
// joins two pictures.
const COMPLETES = /^[\p{M}\u{1F3FB}-\u{1F3FF}]+$/u;
const AFTER_ALL = /[^\p{C}\p{Z}]$/u;
const JOINS = /^\u200D$/u;
const AFTER_PICTURE = new RegExp(`${PICTURE}$`, 'u');
const PICTURED = /^\p{Extended_Pictographic}/u;
const AFTER_JOINER = new RegExp(`${PICTURE}\\u200D$`, 'u');

function completes(text, next) {
  return (COMPLETES.test(next) && AFTER_ALL.test(text))
    || (JOINS.test(next) && AFTER_PICTURE.test(text))
    || (PICTURED.test(next) && AFTER_JOINER.test(text));
}

const MAY_COMPLETE = INDEX.vocabulary.map((text) => COMPLETES.test(text)
  || JOINS.test(text) || PICTURED.test(text));

// The tokens of a context as they are shown: text, activation as a share, and
// whether it is the peak. What completes a character is part of it.
function cells(data, latent, k) {
  const width = data.shape.tokens[2];
  const of = (name) => row(data, name, latent);
  const steps = of('activations').subarray(k * width, (k + 1) * width);
  const found = [];
  of('tokens').subarray(k * width, (k + 1) * width).forEach((token, i) => {
    if (token === NONE) return;
    const text = INDEX.vocabulary[token];
    const cell = {text, share: steps[i] / 255, isPeak: i === of('peak')[k]};
    const last = found.at(-1);
    const isOpen = last && MAY_COMPLETE[token];
    if (isOpen && completes(last.text, text)) merge(last, cell);
    else found.push(cell);
  });
  return markHits(found);
}

function merge(cell, other) {
  cell.text += other.text;
  cell.share = Math.max(cell.share, other.share);
  cell.isPeak ||= other.isPeak;
}

// Marks the tokens that a text that is searched for covers.
function markHits(found) {
  if (!view.query) return found;
  const parts = found.map(({text}) => folded(text));
  const all = parts.join('');
  let at = all.indexOf(view.query);
  for (; at >= 0; at = all.indexOf(view.query, at + 1)) {
    let start = 0;
    parts.forEach((part, i) => {
      const isAfter = start >= at + view.query.length;
      start += part.length;
      if (!isAfter && start > at) found[i].isHit = true;
    });
  }
  return found;
}

// ---- Bar charts ----

function bars(counts, tip, marked) {
  const most = Math.max(...counts, 1);
  const chart = html('div', {class: 'bars'});
  counts.forEach((count, i) => {
    const bar = html('i');
    bar.style.height = `${100 * count / most}%`;
    const mark = i === marked ? 'marked' : '';
    chart.append(html('span', {'data-tip': tip(i), class: mark}, bar));
  });
  return chart;
}

function scale(...labels) {
  return html(
    'div', {class: 'scale'}, ...labels.map((text) => html('span', {}, text)));
}

function drawDensity() {
  const {density} = view.data;
  const alive = density.filter((share) => share > 0);
  const rarest = alive.reduce((a, b) => Math.min(a, b), 1e-3);
  const decades = Math.ceil(-Math.log10(rarest) - 1e-6);
  const counts = Array(decades * PER_DECADE).fill(0);
  const bin = (share) => Math.max(0, Math.min(counts.length - 1,
    Math.floor((Math.log10(share) + decades) * PER_DECADE)));
  const edge = (i) => percent(10 ** (i / PER_DECADE - decades));
  for (const share of alive) counts[bin(share)]++;
  const tip = (i) => `${times(counts[i], 'latent')}\n`
    + `on ${edge(i)} to ${edge(i + 1)} of tokens`;
  const marked = density[view.latent] > 0 && bin(density[view.latent]);
  const stride = decades > 5 ? 2 : 1; // there is room for six labels
  const marks = [...Array(decades + 1).keys()].map(
    (i) => (decades - i) % stride ? '' : edge(i * PER_DECADE));
  byId('dead').textContent = density.length - alive.length;
  byId('density').replaceChildren(bars(counts, tip, marked), scale(...marks));
}

// ---- The list ----

// Where a search finds a latent, best first.
const RANKS = ['by number', 'at a peak', 'promoted', 'in a context'];

function buildList() {
  const {data} = view;
  if (!data) return; // it is still being unpacked
  const query = folded(byId('search').value);
  const [key, sign] = byId('sort').value.split(':');
  const flags = flagTokens(query);
  const ranks = data.latents.map(
    (latent) => rank(data, latent, query, flags));
  const keys = data[key];
  Object.assign(view, {query, ranks});
  view.order = data.latents
    .filter((latent) => ranks[latent] < Infinity && !isHidden(latent))
    .sort((a, b) => ranks[a] - ranks[b] || sign * (keys[a] - keys[b]) || a - b);
  byId('matches').textContent = summary(query, ranks);
  byId('interesting').hidden = key !== 'interest';
  byId('rows').scrollTop = 0;
  drawRows();
}

// A dead latent that is searched for by its number is not hidden.
function isHidden(latent) {
  const isDead = view.data.density[latent] === 0;
  const isNamed = view.query && view.ranks[latent] === 0;
  return isDead && !isNamed && byId('hide-dead').checked;
}

// How well a latent answers a search: 0 is best, Infinity is not at all.
function rank(data, latent, query, flags) {
  if (!query || query.replace('#', '').trim() === String(latent)) return 0;
  const holds = (token) => flags[token] === HOLDS;
  if (data.fires[latent].some(holds)) return 1;
  if (row(data, 'promoted', latent).some(holds)) return 2;
  return isInContext(data, latent, query, flags) ? 3 : Infinity;
}

// Which tokens hold a query, and which end as it begins, so that those after
// them may complete it. So no text is put together but where it may be found.
const [HOLDS, BEGINS] = [1, 2];

function flagTokens(query) {
  return Uint8Array.from(FOLDED, (text) => text.includes(query) ? HOLDS
    : endsAsBegins(text, query) ? BEGINS : 0);
}

function endsAsBegins(text, query) {
  let size = Math.min(text.length, query.length - 1);
  while (size > 0 && !text.endsWith(query.slice(0, size))) size--;
  return size > 0;
}

function isInContext(data, latent, query, flags) {
  const width = data.shape.tokens[2];
  const tokens = row(data, 'tokens', latent);
  return tokens.some((token, i) => flags[token] > 0 && (flags[token] === HOLDS
    || isCompleted(tokens, i, i - i % width + width, query)));
}

function isCompleted(tokens, start, end, query) {
  let text = FOLDED[tokens[start]];
  const enough = text.length + query.length - 1;
  for (let i = start + 1; i < end && text.length < enough; i++) {
    text += FOLDED[tokens[i]] ?? '';
  }
  return text.includes(query);
}

function summary(query, ranks) {
  const found = times(view.order.length, 'latent');
  if (!query) return found;
  const places = RANKS.map((where, place) => [
    view.order.filter((latent) => ranks[latent] === place).length, where]);
  const some = places.filter(([count]) => count > 0);
  return [found, ...some.map((place) => place.join(' '))].join(' · ');
}

// Draws only the rows in view: a list of thousands scrolls like one of ten.
function drawRows() {
  const box = byId('rows');
  const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 8);
  const last = Math.ceil((box.scrollTop + box.clientHeight) / ROW) + 8;
  byId('spacer').style.height = `${view.order.length * ROW}px`;
  byId('spacer').replaceChildren(...view.order.slice(first, last).map(
    (latent, i) => listRow(latent, first + i)));
  byId('empty').hidden = view.order.length > 0;
  byId('empty').textContent = view.order.length ? '' : nothing();
}

// Says why the list is empty.
function nothing() {
  const {query, ranks} = view;
  const hidden = ranks.filter((place) => place < Infinity).length;
  const found = query ? `No latent that is shown has “${plain(query)}”`
    + ' as its number or at a peak, among the promoted tokens or in a context.'
    : 'Every latent is dead: none fires on this text.';
  return hidden ? `${found} ${times(hidden, 'dead latent')} can be shown:`
    + ' switch “Hide dead” off.' : found;
}

// What a row of the list shows of its latent: where a search found it.
const FOUND = [fires, fires, promotes, excerpt];

function fires(data, latent) {
  if (data.density[latent] === 0) return [html('i', {class: 'dead'}, 'dead')];
  return hitsFirst(data.fires[latent]).slice(0, 5).map(chip);
}

function promotes(data, latent) {
  const tokens = [...row(data, 'promoted', latent)].filter(isHit);
  return ['promotes ', ...tokens.map(chip)];
}

// The words around the first place where a search found a context.
function excerpt(data, latent) {
  for (let k = 0; k < data.count[latent]; k++) {
    const found = cells(data, latent, k);
    const first = found.findIndex(({isHit}) => isHit);
    if (first >= 0) return found.slice(Math.max(0, first - 3)).map(shown);
  }
  return fires(data, latent);
}

function shown({text, isHit}) {
  const kind = isHit ? 'hit' : '';
  return html('span', {class: kind}, ...visible(text, IN_TEXT));
}

function hitsFirst(tokens) {
  return [...tokens].sort((a, b) => Boolean(isHit(b)) - Boolean(isHit(a)));
}

function listRow(latent, place) {
  const {sae, data} = view;
  const current = latent === view.latent;
  const href = address(sae.name, latent);
  const link = html('a', {class: 'row', href, 'aria-current': current},
    html('span', {}, latent),
    html('span', {class: 'fires'}, ...FOUND[view.ranks[latent]](data, latent)),
    html('span', {}, percent(data.density[latent])),
    html('span', {}, number(data.maximum[latent])));
  link.style.top = `${place * ROW}px`;
  return link;
}

function showRow() {
  const box = byId('rows');
  const top = view.order.indexOf(view.latent) * ROW;
  const inside = top >= box.scrollTop
    && top + ROW <= box.scrollTop + box.clientHeight;
  if (top >= 0 && !inside) box.scrollTop = top - box.clientHeight / 2;
  drawRows();
}

// ---- The latent ----

function drawLatent() {
  const {data, latent} = view;
  const isHere = latent < data.latents.length;
  byId('name').textContent = isHere ? `Latent ${latent}` : 'Not found';
  byId('about').replaceChildren(...isHere ? facts(data, latent)
    : [`Nothing in this report is at ${location.hash}`]);
  byId('latent').classList.toggle('dead', data.density[latent] === 0);
  byId('parts').replaceChildren(
    ...isHere ? [main(data, latent), aside(data, latent)] : []);
}

function facts({sae, density, maximum}, latent) {
  const name = html('bdi', {}, plain(sae.name));
  const isDead = density[latent] === 0;
  if (isDead) return ['of ', name, ', dead: it never fires here'];
  return ['of ', name, `, fires on ${percent(density[latent])} of tokens, `
    + `at most ${number(maximum[latent])}`];
}

function main(data, latent) {
  const first = data.density[latent] === 0 ? [obituary(data)]
    : contexts(data, latent);
  return html('div', {}, ...first, ...code(data, latent));
}

function obituary({sae}) {
  return html('p', {class: 'obituary'}, 'This latent is dead: it fired on none'
    + ` of ${times(sae.measured, 'token')}, so it has no contexts. What its`
    + ' direction promotes and which are near it may still be read.');
}

function part(title, ...children) {
  return html('section', {class: 'part'}, html('h3', {}, title), ...children);
}

function contexts(data, latent) {
  const each = Array.from(
    {length: data.count[latent]}, (_, k) => context(data, latent, k));
  const [top, lower] = [data.top[latent], data.count[latent]];
  const list = (from, to) => html(
    'ol', {class: 'contexts'}, ...each.slice(from, to));
  const parts = [
    part('Top contexts, shaded by activation', list(0, top))];
  return lower === top ? parts
    : [...parts, part('Weaker contexts, drawn at random', list(top, lower))];
}

function context(data, latent, k) {
  const own = (name) => row(data, name, latent)[k];
  const found = cells(data, latent, k);
  const peak = found.find(({isPeak}) => isPeak)?.share ?? 0;
  const value = peak * data.scale[latent];
  const tokens = found.map((cell) => shaded(cell, data.scale[latent]));
  return html('li', {}, html('p', {class: 'text'}, ...tokens),
    html('p', {class: 'source'}, html('b', {}, number(value)),
      k < data.top[latent] ? '' : html('i', {}, quantile(data, latent, value)),
      html('span', {}, plain(INDEX.documents[own('document')] ?? '')),
      html('i', {}, `position ${own('position')}`)));
}

function shaded({text, share, isPeak, isHit}, scale) {
  const kinds = ['token', isPeak && 'peak', isHit && 'hit'];
  const node = html('span', {
    class: kinds.filter(Boolean).join(' '), 'data-tip': number(share * scale),
  }, ...visible(text, IN_TEXT));
  if (share > 0) node.style.setProperty('--heat', 0.1 + 0.9 * share);
  return node;
}

// How much of a latent's activations a value is above, by its histogram.
function quantile(data, latent, value) {
  const counts = row(data, 'histogram', latent);
  const place = counts.length * value / data.maximum[latent];
  const below = counts.reduce((sum, count, i) => sum
    + count * Math.max(0, Math.min(1, place - i)), 0);
  const all = counts.reduce((sum, count) => sum + count, 0);
  const share = Math.floor(100 * below / Math.max(1, all));
  return `above ${share}% of activations`;
}

// Python that loads the latent, and that steers with it.
function code({sae, maximum}, latent) {
  if (!sae.load) return [];
  const strength = +(2 * maximum[latent]).toPrecision(3) || 10;
  const load = `${sae.load}\ndirection = sae.w_dec[${latent}]`;
  const note = maximum[latent] > 0 ? '  # twice its maximum' : '';
  const steer = `clamp = jaxsae.Clamp(sae, ${latent}, ${strength})${note}\n`
    + 'edits = jaxsae.splice(taps, clamp)\n'
    + 'print(jaxsae.generate(lm, "Once", edits=edits, max_tokens=40))';
  return [part('Load it in Python', html('pre', {class: 'code load'}, load)),
    part('Steer with it', html('pre', {class: 'code steer'}, steer))];
}

function aside(data, latent) {
  const counts = [...row(data, 'histogram', latent)];
  const edge = (i) => number(data.maximum[latent] * i / counts.length);
  const tip = (i) => `${times(counts[i], 'token')}\n`
    + `from ${edge(i)} to ${edge(i + 1)}`;
  const activity = data.density[latent] === 0 ? []
    : [part('Activations', bars(counts, tip), scale('0', edge(counts.length)))];
  return html('aside', {},
    part('Promoted tokens', effects(data, latent, 'promoted')),
    part('Suppressed tokens', effects(data, latent, 'suppressed')),
    ...activity,
    part('Nearest latents', neighbours(data, latent)));
}

function effects(data, latent, kind) {
  const values = row(data, `${kind}Values`, latent);
  const both = ['promotedValues', 'suppressedValues'].flatMap(
    (name) => [...row(data, name, latent)]);
  const most = Math.max(...both.map(Math.abs));
  const tokens = [...row(data, kind, latent)];
  return html('ol', {class: `effects ${kind}`}, ...tokens.map((token, i) => bar(
    chip(token), values[i], Math.abs(values[i]) / most)));
}

function bar(label, value, share) {
  const node = html('li', {}, label, html('i'), html('b', {}, number(value)));
  node.style.setProperty('--share', Math.max(0, share) || 0);
  return node;
}

function neighbours(data, latent) {
  const cosines = row(data, 'cosines', latent);
  const near = [...row(data, 'neighbours', latent)];
  return html('ol', {class: 'effects'}, ...near.map((other, i) => {
    if (other >= data.latents.length) return ''; // fewer latents than places
    const href = address(data.sae.name, other);
    const some = fires(data, other).slice(0, 2);
    const link = html('a', {class: 'fires', href}, other, ...some);
    return bar(link, cosines[i], cosines[i]);
  }));
}

// ---- Addresses, keys and tips ----

function address(name, latent) {
  const path = name.split('/').map(encodeURIComponent).join('/');
  return latent === undefined ? `#/${path}` : `#/${path}/${latent}`;
}

// What an address names: an autoencoder, and a latent (NaN if there is none).
function find(hash) {
  const named = (path) => INDEX.saes.find(({name}) => address(name) === path);
  const [, path, latent] = /^(.*)\/(\d+)$/.exec(hash) ?? [];
  const [first] = INDEX.saes;
  if (hash.length < 3 || named(hash)) return {sae: named(hash) ?? first};
  return {sae: named(path) ?? first, latent: named(path) ? +latent : NaN};
}

async function follow() {
  const turn = ++view.turn;
  const {sae, latent} = find(location.hash);
  const data = await load(sae);
  if (turn !== view.turn) return;
  const isOther = data !== view.data;
  Object.assign(view, {sae, data, latent});
  if (isOther) markSae();
  if (isOther) buildList();
  view.latent ??= view.order[0] ?? 0;
  drawDensity();
  drawLatent();
  showRow();
}

// Shows the neighbour in the list, without a step in the browser's history.
function move(step) {
  const {order, sae} = view;
  if (!order.length) return;
  const place = order.indexOf(view.latent) + step;
  const latent = order[Math.max(0, Math.min(order.length - 1, place))];
  history.replaceState(null, '', address(sae.name, latent));
  follow();
}

// Keys in the search: Enter shows the first latent that was found.
function choose(event) {
  const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
  if (step) event.preventDefault();
  if (step) move(step);
  if (event.key !== 'Enter' || event.isComposing || !view.order.length) return;
  event.target.blur();
  const there = address(view.sae.name, view.order[0]);
  if (location.hash === there) reveal();
  else location.hash = there;
}

function reveal() {
  const {top} = byId('latent').getBoundingClientRect();
  const isFar = top < 0 || top > 0.6 * innerHeight;
  const {latent} = find(location.hash);
  if (isFar && latent !== undefined) byId('latent').scrollIntoView();
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'Escape') event.target.blur();
  if (event.target.matches('[type=search], select')) return;
  const step = {j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1}[event.key];
  if (step) move(step);
  if (event.key === '/') {
    event.preventDefault();
    byId('search').focus();
  }
}

function search() {
  buildList();
  if (view.data) drawLatent();
}

function sortBy({currentTarget}) {
  const sort = byId('sort');
  const mine = [...sort.options].map((option) => option.value)
    .filter((value) => value.startsWith(currentTarget.dataset.sort));
  sort.value = mine.find((value) => value !== sort.value) ?? mine[0];
  buildList();
}

function showTip({target}) {
  const tip = byId('tip');
  const node = target.closest?.('[data-tip]');
  tip.hidden = !node;
  if (!node) return;
  tip.textContent = node.dataset.tip;
  const box = node.getBoundingClientRect();
  const middle = box.left + (box.width - tip.offsetWidth) / 2;
  const right = innerWidth - tip.offsetWidth - 8;
  const above = box.top - tip.offsetHeight - 6;
  tip.style.left = `${Math.max(8, Math.min(right, middle))}px`;
  tip.style.top = `${above > 4 ? above : box.bottom + 6}px`;
}

function markSae() {
  for (const node of document.querySelectorAll('[data-sae]')) {
    node.classList.toggle('chosen', node.dataset.sae === view.sae.name);
  }
  byId('sae').value = view.sae.name;
}

function on(selector, kind, handler) {
  for (const node of document.querySelectorAll(selector)) {
    node.addEventListener(kind, handler);
  }
}

function listen() {
  on('#search, #sort, #hide-dead', 'input', search);
  on('#search', 'keydown', choose);
  on('#rows', 'scroll', drawRows);
  on('#sae', 'change', ({target}) => location.hash = address(target.value));
  on('[data-sort]', 'click', sortBy);
  on('[data-step]', 'click', ({target}) => move(+target.dataset.step));
  on('body', 'keydown', press);
  on('body', 'pointerover', showTip);
  on('body', 'focusin', showTip);
  addEventListener('scroll', () => byId('tip').hidden = true, true);
  addEventListener('resize', drawRows);
  addEventListener('hashchange', () => follow().then(reveal));
}

for (const link of document.querySelectorAll('a[data-sae]')) {
  link.setAttribute('href', address(link.dataset.sae));
}
listen();
follow();
