/** The status bar item: how many clusters run, and what they cost an hour. A click opens the sidebar. */
import { ReactWidget } from '@jupyterlab/apputils';
import * as React from 'react';

import { clusterIcon } from './icon';
import type { Watch } from './watch';
import { counted, perHour, running } from './words';

export class ClusterStatus extends ReactWidget {
  constructor(
    private readonly watch: Watch,
    private readonly open: () => void
  ) {
    super();
    this.addClass('jp-ppe-status');
    watch.changed.connect(() => this.update());
  }

  render(): React.JSX.Element | null {
    const { overview, problem } = this.watch;
    const stale = problem ?? overview?.problem;
    if (!overview || (!overview.clusters.length && !stale)) {
      return null;
    }
    const { clusters, usd_per_hour, free } = overview;
    const up = running(overview).length;
    const others = clusters.length - up;
    const text = `${counted(up, 'cluster')}${others ? ` + ${others} not running` : ''}`;
    const rate = free ? 'free' : perHour(usd_per_hour);
    const said = `${text} · ${rate}${stale ? ' · last known' : ''}`;
    const caption = `${overview.whose}: ${said}. Click to show the clusters.`;
    return (
      <button
        className="jp-StatusBar-TextItem"
        title={stale?.detail ?? caption}
        aria-label={caption}
        onClick={this.open}
      >
        <clusterIcon.react tag="span" width="14px" height="14px" />
        {said}
      </button>
    );
  }
}
