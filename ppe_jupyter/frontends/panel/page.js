/**
 * What of the panel lives in the page: whether it is looked at, a table to choose from, a choice of which some cannot be
 * chosen, a line to copy. Widgets of page.py, told apart by `kind`; all they say of clusters comes from there.
 */
const BEAT = 15000; // milliseconds from one sign of life to the next
const AT_ONCE = 500; // milliseconds
const MOST = 100; // rows in the page
const COLUMNS = [
  ['name', 'type'],
  ['cores', 'cores'],
  ['gb', 'GB'],
  ['gbps', 'Gb/s'],
  ['cluster_capable', 'cluster-capable'],
  ['usd_per_hour', '$/h'],
  ['spot_usd_per_hour', 'spot $/h'],
  ['usd_per_core_hour', '$/core-h'],
  ['arch', 'arch']
];
const WORDS = ['name', 'arch'];

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A label and its field, as those of ipywidgets look. */
function labelled(el, look, label, field) {
  field.id = `ppe-${Math.random().toString(36).slice(2)}`;
  el.classList.add('jupyter-widgets', 'widget-inline-hbox', look);
  el.append(element('label', { className: 'widget-label', htmlFor: field.id, textContent: label }), field);
}

/**
 * Says that it is seen, again and again while it is; once that it is not. It lies over the whole panel, and brings that
 * back when a shorter tab has taken it out of sight.
 */
function seen({ model, el }) {
  const view = Math.random().toString(36).slice(2);
  let near = false;
  let timer = 0;
  let height = 0;
  let shrunk = -Infinity;
  const look = () => {
    const now = near && document.visibilityState === 'visible';
    if (now !== Boolean(timer)) {
      clearInterval(timer);
      timer = now ? setInterval(() => model.send({ view, seen: true }), BEAT) : 0;
      model.send({ view, seen: now });
    }
  };
  const observer = new IntersectionObserver(entries => {
    near = entries.at(-1).isIntersecting;
    if (!near && height && performance.now() - shrunk < AT_ONCE) {
      el.scrollIntoView({ block: 'nearest' });
      setTimeout(look, AT_ONCE);
    } else {
      look();
    }
  });
  const sizes = new ResizeObserver(() => {
    shrunk = el.offsetHeight < height ? performance.now() : shrunk;
    height = el.offsetHeight;
  });
  el.classList.add('ppe-seen');
  observer.observe(el);
  sizes.observe(el);
  document.addEventListener('visibilitychange', look);
  return () => {
    observer.disconnect();
    sizes.disconnect();
    document.removeEventListener('visibilitychange', look);
    near = false;
    look();
  };
}

function line({ model, el }) {
  const field = element('input', { type: 'text', readOnly: true, title: model.get('hint') });
  const said = element('span', { role: 'status' });
  const copy = element('button', { type: 'button', className: 'ppe-link', textContent: 'Copy' });
  copy.setAttribute('aria-label', `Copy: ${model.get('label')}`);
  copy.onclick = async () => {
    try {
      await navigator.clipboard.writeText(field.value);
    } catch {
      field.select(); // a page that came without TLS has no clipboard
      document.execCommand('copy');
    }
    said.textContent = '✓ copied';
    setTimeout(() => said.replaceChildren(), 2000);
  };
  labelled(el, 'widget-text', model.get('label'), field);
  el.append(copy);
  if (model.get('terminal')) {
    const open = element('button', { type: 'button', className: 'ppe-link', textContent: 'Open a terminal there' });
    open.onclick = () => terminal(field.value).catch(error => (said.textContent = `▲ no terminal: ${error.message}`));
    el.append(open);
  }
  el.append(said);
  const draw = () => {
    field.value = model.get('value');
  };
  model.on('change:value', draw);
  draw();
}

/** A terminal of the Jupyter server, in which the command has been typed; our lab extension shows it. */
async function terminal(command) {
  const { baseUrl = '/', token } = JSON.parse(document.getElementById('jupyter-config-data')?.textContent ?? '{}');
  const xsrf = document.cookie.match(/\b_xsrf=([^;]*)/)?.[1] ?? '';
  const headers = { 'X-XSRFToken': xsrf, ...(token && { Authorization: `token ${token}` }) };
  const answer = await fetch(`${baseUrl}api/terminals`, { method: 'POST', headers });
  if (!answer.ok) {
    throw new Error(`the Jupyter server says ${answer.status} ${answer.statusText}`);
  }
  const { name } = await answer.json();
  const address = new URL(`${baseUrl}terminals/websocket/${name}`, location.href);
  address.protocol = address.protocol.replace('http', 'ws');
  address.search = token ? `token=${token}` : '';
  const socket = new WebSocket(address);
  await new Promise((resolve, reject) => {
    socket.onmessage = resolve; // the shell's first words
    socket.onerror = () => reject(new Error('it could not be reached'));
  });
  socket.send(JSON.stringify(['stdin', `${command}\r`]));
  socket.close();
  if (document.dispatchEvent(new CustomEvent('ppe-terminal', { detail: name, cancelable: true }))) {
    open(`${baseUrl}terminals/${name}`); // nobody heard it
  }
}

function choice({ model, el }) {
  const field = element('select');
  labelled(el, 'widget-dropdown', model.get('label'), field);
  field.onchange = () => {
    model.set('value', field.value);
    model.save_changes();
  };
  const draw = () => {
    const options = model.get('options').map(([label, value, why]) =>
      element('option', { value, disabled: Boolean(why), textContent: why ? `${label}: ${why}` : label })
    );
    field.replaceChildren(...options);
    field.value = model.get('value');
  };
  model.on('change:options change:value', draw);
  draw();
}

/** Filtered and sorted here, at once and without the kernel. */
function types({ model, el }) {
  const group = `ppe-${Math.random().toString(36).slice(2)}`;
  let [key, sign] = ['usd_per_core_hour', 1];
  const words = element('input', { type: 'search', placeholder: 'such as c7a or arm64' });
  const cores = element('input', { type: 'number', min: 0, value: 0 });
  const gb = element('input', { type: 'number', min: 0, value: 0 });
  const capable = element('input', { type: 'checkbox' });
  const tools = element('div', { className: 'ppe-tools' });
  for (const [label, field] of [['Filter', words], ['Cores ≥', cores], ['GB ≥', gb], ['cluster-capable', capable]]) {
    tools.append(element('label', {}, `${label} `, field));
    field.oninput = () => draw();
  }
  const heads = COLUMNS.map(([name, label]) => {
    const sort = element('button', { type: 'button', textContent: label, title: `Sort by ${label}` });
    sort.onclick = () => {
      [key, sign] = [name, name === key ? -sign : ['cores', 'gb', 'gbps', 'cluster_capable'].includes(name) ? -1 : 1];
      draw();
    };
    return element('th', { scope: 'col', className: WORDS.includes(name) ? '' : 'ppe-number' }, sort);
  });
  const body = element('tbody');
  const caption = element('caption', { textContent: 'Instance types' });
  const table = element('table', {}, caption, element('thead', {}, element('tr', {}, ...heads)), body);
  const frame = element('div', { className: 'ppe-types' }, table);
  const said = element('div', { className: 'ppe-calm' });
  said.setAttribute('role', 'status');
  el.append(tools, frame, said);

  const compare = (one, other) => {
    const [a, b] = [one[key], other[key]];
    if (a === null || b === null) {
      return (a === null) - (b === null); // what is not known comes last
    }
    return sign * (typeof a === 'string' ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
  };
  const fits = type =>
    words.value.toLowerCase().split(/\s+/).every(word => `${type.name} ${type.arch}`.includes(word)) &&
    (type.cores ?? 0) >= Number(cores.value) &&
    (type.gb ?? 0) >= Number(gb.value) &&
    (type.cluster_capable || !capable.checked);

  const row = type => {
    const radio = element('input', { type: 'radio', name: group, value: type.name });
    radio.checked = type.name === model.get('value');
    radio.onchange = () => {
      model.set('value', type.name);
      model.save_changes();
    };
    const name = element('th', { scope: 'row' }, element('label', {}, radio, ` ${type.name}`));
    const cells = COLUMNS.slice(1).map(([name]) =>
      element('td', { className: WORDS.includes(name) ? '' : 'ppe-number', textContent: text(name, type[name]) })
    );
    const made = element('tr', {}, name, ...cells);
    made.onclick = event => event.target === radio || event.target.closest('label') || radio.click();
    return made;
  };
  const draw = () => {
    const all = model.get('types');
    const found = all.filter(fits).sort(compare);
    const shown = found.slice(0, MOST);
    const chosen = all.find(type => type.name === model.get('value'));
    if (chosen && !shown.includes(chosen)) {
      shown.unshift(chosen);
    }
    body.replaceChildren(...shown.map(row));
    heads.forEach((head, index) => {
      const sorted = COLUMNS[index][0] === key;
      head.ariaSort = sorted ? (sign > 0 ? 'ascending' : 'descending') : 'none';
      head.firstChild.dataset.mark = sorted ? (sign > 0 ? '▲' : '▼') : '';
    });
    const cut = found.length > MOST ? `, the first ${MOST} shown` : '';
    said.textContent = all.length ? `${found.length} of ${all.length} types${cut} · ${model.get('source')}` : '◐ asking …';
  };
  model.on('change:types', draw);
  model.on('change:value', () => {
    if (body.querySelector('input:checked')?.value !== model.get('value')) {
      draw();
    }
  });
  draw();
}

function text(name, value) {
  if (value === null) {
    return name === 'spot_usd_per_hour' ? '' : '?';
  }
  if (typeof value === 'boolean') {
    return value ? 'yes' : 'no';
  }
  return name.startsWith('usd') || name.startsWith('spot') ? value.toFixed(4) : String(value);
}

const kinds = { seen, line, choice, types };

export default {
  render(context) {
    return kinds[context.model.get('kind')](context);
  }
};
