/** The form for a cluster's limits: what ends it by itself. An empty field stays as it is. */
import { ReactWidget } from '@jupyterlab/apputils';
import * as React from 'react';

import type { ICluster, ISpec } from './api';

export const LIMITS: readonly (readonly [string, string, string])[] = [
  ['idle_hours', 'Hours without work', '0 for no limit'],
  ['max_hours', 'Hours since its launch or start', ''],
  ['budget_usd', 'US dollars spent', '']
];
export const THEN: readonly (readonly [string, string])[] = [
  ['park', 'park: workers go, the master’s disk stays'],
  ['terminate', 'terminate: all goes']
];

export class Limits extends ReactWidget {
  private readonly values: ISpec = {};

  constructor(private readonly cluster: ICluster) {
    super();
    this.addClass('jp-ppe-limits');
  }

  /** What was filled in. */
  getValue(): ISpec {
    return this.values;
  }

  render(): React.JSX.Element {
    const { budget_usd } = this.cluster;
    return (
      <div className="jp-ppe-fields">
        {LIMITS.map(([key, label, hint]) => (
          <label key={key}>
            <span>{label}</span>
            <input
              className="jp-mod-styled"
              type="number"
              min="0"
              step="any"
              placeholder={key === 'budget_usd' && budget_usd !== null ? `${budget_usd}` : hint}
              onChange={({ target }) => this.set(key, target.value === '' ? null : Number(target.value))}
            />
          </label>
        ))}
        <label>
          <span>Then</span>
          <select className="jp-mod-styled" onChange={({ target }) => this.set('then', target.value || null)}>
            <option value="">as it is</option>
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

  private set(key: string, value: ISpec[string]): void {
    if (value === null) {
      delete this.values[key];
    } else {
      this.values[key] = value;
    }
  }
}
