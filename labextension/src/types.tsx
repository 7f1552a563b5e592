/** The table of instance types: filtered as one types, sorted by any column. Knows nothing of the server. */
import * as React from 'react';

import type { IInstanceType } from './api';
import { dollars } from './words';

const MOST = 60;
const COLUMNS: readonly (readonly [keyof IInstanceType, string, string])[] = [
  ['name', 'Type', 'Instance type'],
  ['cores', 'Cores', 'Physical cores'],
  ['gb', 'GB', 'Memory'],
  ['usd_per_hour', '$/h', 'On demand, a node'],
  ['gbps', 'Gb/s', 'Network'],
  ['cluster_capable', 'Group', 'Can be in a cluster placement group, with the fastest network between nodes']
];

export function TypeTable(props: {
  types: IInstanceType[] | undefined;
  chosen: string;
  onChoose: (name: string) => void;
}): React.JSX.Element {
  const [filter, setFilter] = React.useState('');
  const [least, setLeast] = React.useState({ cores: '', gb: '' });
  const [sort, setSort] = React.useState<{ by: keyof IInstanceType; down: boolean }>({
    by: 'usd_per_hour',
    down: false
  });
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const fitting = (props.types ?? []).filter(
    each =>
      words.every(word => `${each.name} ${each.arch}`.includes(word)) &&
      each.cores >= Number(least.cores) &&
      each.gb >= Number(least.gb)
  );
  fitting.sort((a, b) => (sort.down ? -1 : 1) * compare(a[sort.by], b[sort.by]));
  const number = (key: 'cores' | 'gb', label: string) => (
    <input
      className="jp-mod-styled"
      type="number"
      min="0"
      aria-label={label}
      placeholder={label}
      value={least[key]}
      onChange={({ target }) => setLeast({ ...least, [key]: target.value })}
    />
  );
  return (
    <div className="jp-ppe-types">
      <div className="jp-ppe-filter">
        <input
          className="jp-mod-styled"
          type="search"
          aria-label="Filter by name or architecture"
          placeholder="Filter, such as c7a or arm64"
          value={filter}
          autoFocus
          onChange={({ target }) => setFilter(target.value)}
        />
        {number('cores', 'cores ≥')}
        {number('gb', 'GB ≥')}
      </div>
      <div className="jp-ppe-tableBox">
        <table>
          <thead>
            <tr>
              {COLUMNS.map(([key, label, caption]) => (
                <th
                  key={key}
                  scope="col"
                  title={caption}
                  aria-sort={sort.by === key ? (sort.down ? 'descending' : 'ascending') : undefined}
                >
                  <button
                    type="button"
                    onClick={() => setSort({ by: key, down: sort.by === key && !sort.down })}
                  >
                    {label}
                  </button>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {fitting.slice(0, MOST).map(each => (
              <tr
                key={each.name}
                className={each.name === props.chosen ? 'jp-ppe-mod-chosen' : ''}
                onClick={() => props.onChoose(each.name)}
              >
                <td>
                  <button type="button" aria-pressed={each.name === props.chosen} title={each.arch}>
                    {each.name}
                  </button>
                </td>
                <td>{each.cores}</td>
                <td>{Math.round(10 * each.gb) / 10}</td>
                <td>{each.usd_per_hour === null ? '?' : dollars(each.usd_per_hour).slice(1)}</td>
                <td>{each.gbps ?? '?'}</td>
                <td>{each.cluster_capable ? 'yes' : 'no'}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p className="jp-ppe-quiet" role="status">
        {!props.types
          ? 'Asking for the types…'
          : fitting.length > MOST
            ? `${fitting.length} types fit; the first ${MOST} are shown`
            : `${fitting.length} of ${props.types.length} types`}
      </p>
    </div>
  );
}

/** Unknown values come last. */
function compare(a: unknown, b: unknown): number {
  if (a === null || b === null) {
    return Number(a === null) - Number(b === null);
  }
  return typeof a === 'string' ? a.localeCompare(String(b), 'en', { numeric: true }) : Number(a) - Number(b);
}
