// Draws the report from the data blocks of its page. Nothing is fetched, and
// text enters only as text nodes, so that no token can become markup.
'use strict';

const INDEX = JSON.parse(byId('index').textContent);
const NONE = INDEX.vocabulary.length; // the token that is not there
const ROW = 36; // pixels, the height of .row in report.css
const PER_DECADE = 5; // bars of the density histogram

// What is in view: sae, its decoded data, a latent, the order of the list.
// The turn counts navigations, so that a slow one overtakes no later one.
const view = {order: [], turn: 0};

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

// The distinct strongest tokens of a latent's contexts, commonest first.
function peakTokens(data, latent) {
  const width = data.shape.tokens[2];
  const tokens = row(data, 'tokens', latent);
  const tally = new Map();
  row(data, 'peak', latent).forEach((peak, k) => {
    const token = tokens[k * width + peak];
    if (k < data.count[latent]) tally.set(token, (tally.get(token) ?? 0) + 1);
  });
  return [...tally].sort((a, b) => b[1] - a[1]).map(([token]) => token);
}

// A strong effect on the logits; each decade of density outside one token in a
// hundred to one in ten thousand weighs more than any effect.
function interest(data, latent) {
  const decades = Math.abs(Math.log10(data.density[latent] + 1e-9) + 3);
  const effect = row(data, 'promotedValues', latent)[0] ?? 0;
  return effect - 100 * Math.max(0, decades - 1);
}

// ---- Tokens ----

// What would print nothing: in running text a single space may.
const UNSEEN = '(?! )[\\p{Cc}\\p{Cf}\\p{Cs}\\p{Z}]';
const IN_TEXT = new RegExp(`(${UNSEEN}| {2,})`, 'u');
const ALONE = new RegExp(`(${UNSEEN}| +)`, 'u');

// A token's text as nodes, with faint marks for what is unseen.
function visible(token, unseen) {
  const text = INDEX.vocabulary[token] || '∅';
  return text.split(unseen).map((part, i) => i % 2 === 0 ? part
    : html('i', {class: part === '\n' ? 'mark break' : 'mark'}, mark(part)));
}

function mark(part) {
  const code = part.codePointAt(0);
  if (part === '\n') return '⏎';
  if (part === '\t') return '⇥';
  if (part[0] === ' ') return '·'.repeat(part.length);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  return `U+${code.toString(16).toUpperCase().padStart(4, '0')}`;
}

function chip(token) {
  return html('bdi', {class: 'chip'}, ...visible(token, ALONE));
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
  const query = byId('search').value.toLowerCase();
  const [key, sign] = byId('sort').value.split(':');
  const ranks = data.latents.map((latent) => rank(data, latent, query));
  const keys = data[key];
  const dead = byId('hide-dead').checked ? 0 : -1;
  view.order = data.latents
    .filter((latent) => ranks[latent] < Infinity && data.density[latent] > dead)
    .sort((a, b) => ranks[a] - ranks[b] || sign * (keys[a] - keys[b]) || a - b);
  byId('matches').textContent = summary(query, ranks);
  byId('rows').scrollTop = 0;
  drawRows();
}

// How well a latent answers a search: 0 is best, Infinity is not at all.
function rank(data, latent, query) {
  if (!query || query.replace('#', '').trim() === String(latent)) return 0;
  data.texts ??= data.latents.map((each) => searchTexts(data, each));
  const place = data.texts[latent].findIndex((text) => text.includes(query));
  return place < 0 ? Infinity : place + 1;
}

function searchTexts(data, latent) {
  const width = data.shape.tokens[2];
  const text = (token) => (INDEX.vocabulary[token] ?? '').toLowerCase();
  const list = (tokens) => Array.from(tokens, text).join('\0');
  const contexts = Array.from(row(data, 'tokens', latent),
    (token, i) => (i % width ? '' : '\0') + text(token)).join('');
  const promoted = list(row(data, 'promoted', latent));
  return [list(data.fires[latent]), promoted, contexts];
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
}

function listRow(latent, place) {
  const {sae, data} = view;
  const current = latent === view.latent;
  const fires = data.fires[latent].slice(0, 5).map(chip);
  const href = address(sae.name, latent);
  const link = html('a', {class: 'row', href, 'aria-current': current},
    html('span', {}, latent),
    html('span', {class: 'fires'}, ...fires),
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
  byId('about').textContent = isHere ? about(data, latent)
    : `Nothing in this report is at ${location.hash}`;
  byId('parts').replaceChildren(
    ...isHere ? [contexts(data, latent), aside(data, latent)] : []);
}

function about({sae, density, maximum}, latent) {
  if (density[latent] === 0) return `of ${sae.name}, never fires here`;
  return `of ${sae.name}, fires on ${percent(density[latent])} of tokens, `
    + `at most ${number(maximum[latent])}`;
}

function part(title, ...children) {
  return html('section', {class: 'part'}, html('h3', {}, title), ...children);
}

function contexts(data, latent) {
  const each = Array.from(
    {length: data.count[latent]}, (_, k) => context(data, latent, k));
  return part('Top contexts, shaded by activation', html('ol', {class: 'contexts'}, ...each));
}

function context(data, latent, k) {
  const width = data.shape.tokens[2];
  const own = (name) => row(data, name, latent);
  const steps = own('activations').subarray(k * width, (k + 1) * width);
  const tokens = [...own('tokens').subarray(k * width, (k + 1) * width)];
  const peak = own('peak')[k];
  const value = (i) => number(steps[i] / 255 * data.scale[latent]);
  const text = tokens.map((token, i) => token === NONE ? ''
    : shaded(token, steps[i] / 255, value(i), i === peak));
  return html('li', {}, html('p', {class: 'text'}, ...text),
    html('p', {class: 'source'}, html('b', {}, value(peak)),
      html('span', {}, INDEX.documents[own('document')[k]]),
      `position ${own('position')[k]}`));
}

function shaded(token, share, value, isPeak) {
  const node = html('bdi', {
    class: isPeak ? 'token peak' : 'token', 'data-tip': value,
  }, ...visible(token, IN_TEXT));
  if (share > 0) node.style.setProperty('--heat', 0.1 + 0.9 * share);
  return node;
}

function aside(data, latent) {
  const counts = [...row(data, 'histogram', latent)];
  const edge = (i) => number(data.maximum[latent] * i / counts.length);
  const tip = (i) => `${times(counts[i], 'token')}\n`
    + `from ${edge(i)} to ${edge(i + 1)}`;
  return html('aside', {},
    part('Promoted tokens', effects(data, latent, 'promoted')),
    part('Suppressed tokens', effects(data, latent, 'suppressed')),
    part('Activations', bars(counts, tip), scale('0', edge(counts.length))),
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
    const fires = data.fires[other].slice(0, 2).map(chip);
    const link = html('a', {class: 'fires', href}, other, ...fires);
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
  on('#search, #sort, #hide-dead', 'input', buildList);
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
