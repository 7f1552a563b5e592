/** The form for a cluster's limits, which are what ends it by itself: shows what holds, and tells what was changed. */
import { ReactWidget } from '@jupyterlab/apputils';
import * as React from 'react';

import type { ICluster, ISpec } from './api';

/** Their names, labels, and what an empty field means at a launch. */
export const LIMITS = [
  ['idle_hours', 'Hours without work', 'as configured; 0: no limit'],
  ['max_hours', 'Hours since its launch or start', 'no limit'],
  ['budget_usd', 'US dollars spent', 'no limit']
] as const;
export const THEN: readonly (readonly [string, string])[] = [
  ['park', 'park: workers go, the master’s disk stays'],
  ['terminate', 'terminate: all goes']
];

export class Limits extends ReactWidget {
  private readonly changed: ISpec = {};

  constructor(private readonly cluster: ICluster) {
    super();
    this.addClass('jp-ppe-limits');
  }

  /** What was changed; 0 is no limit. */
  getValue(): ISpec {
    return this.changed;
  }

  render(): React.JSX.Element {
    const { cluster, changed } = this;
    return (
      <div className="jp-ppe-fields">
        {LIMITS.map(([key, label]) => (
          <label key={key}>
            <span>{label}</span>
            <input
              className="jp-mod-styled"
              type="number"
              min="0"
              step="any"
              placeholder={key === 'idle_hours' && cluster.idle_hours === null ? 'as configured' : 'no limit'}
              defaultValue={cluster[key] || ''}
              onChange={({ target }) => {
                changed[key] = Number(target.value);
              }}
            />
          </label>
        ))}
        <label>
          <span>Then</span>
          <select
            className="jp-mod-styled"
            defaultValue={cluster.then ?? ''}
            onChange={({ target }) => {
              changed.then = target.value;
            }}
          >
            {THEN.map(([value, label]) => (
              <option key={value} value={value}>
                {label}
              </option>
            ))}
          </select>
        </label>
      </div>
    );
  }
}
