/**
 * The sidebar: whose money, what it costs, the clusters, and the form that launches one.
 *
 * It shows clusters made anywhere, and needs no kernel. While it is not shown it asks for nothing.
 */
import { ReactWidget } from '@jupyterlab/apputils';
import type { Message } from '@lumino/messaging';
import * as React from 'react';

import type { ICluster, IOperation, IOverview } from './api';
import { Card } from './card';
import type { Changes } from './changes';
import { LaunchForm, NEW } from './form';
import { clusterIcon } from './icon';
import { Progress, Trouble } from './parts';
import type { IViewServices } from './services';
import type { Watch } from './watch';
import { dollars, perHour, soFar } from './words';

/** More clusters than this are searched rather than looked through. */
const MANY = 8;

export class Sidebar extends ReactWidget {
  private form = false;
  private readonly draft = { values: NEW };
  private following = false;
  private readonly dismissed = new Set<string>();

  constructor(
    private readonly watch: Watch,
    private readonly changes: Changes,
    private readonly act: IViewServices['act']
  ) {
    super();
    this.id = 'ppe-jupyter-clusters';
    this.addClass('jp-ppe-sidebar');
    this.title.icon = clusterIcon;
    this.title.caption = 'Clusters';
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'Clusters');
    watch.changed.connect(() => this.update());
  }

  /** Show the launch form, or the clusters. */
  showForm(form: boolean): void {
    this.form = form;
    this.update();
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.follow();
  }

  protected onAfterHide(message: Message): void {
    super.onAfterHide(message);
    this.follow();
  }

  private follow(): void {
    if (this.following !== this.isVisible) {
      this.following = this.isVisible;
      this.watch.follow(this.following ? 1 : -1);
    }
    this.update();
  }

  render(): React.JSX.Element {
    const { watch, changes, act } = this;
    const services = { watch, changes, act, shown: this.following && !this.form };
    const { overview, problem } = watch;
    return (
      <>
        <Header overview={overview} form={this.form} onForm={form => this.showForm(form)} />
        <div className="jp-ppe-scroll">
          {problem && <Trouble problem={problem} onAgain={() => watch.again()} />}
          {overview?.problem && (
            <Trouble problem={overview.problem} label="Last known" onAgain={() => watch.again()} />
          )}
          {overview?.preparing && !overview.up && (
            <p className="jp-ppe-quiet" role="status">
              {overview.preparing}
            </p>
          )}
          {this.form && (
            <LaunchForm services={services} draft={this.draft} onDone={() => this.showForm(false)} />
          )}
          <div hidden={this.form}>
            <Clusters
              overview={overview}
              services={services}
              dismissed={this.dismissed}
              onChange={() => this.update()}
            />
            {overview && !overview.clusters.length && !launching(overview).length && !overview.problem && (
              <Empty overview={overview} onLaunch={() => this.showForm(true)} />
            )}
          </div>
          {!overview && !problem && (
            <p className="jp-ppe-quiet" role="status">
              Looking for clusters…
            </p>
          )}
        </div>
      </>
    );
  }
}

function Header(props: {
  overview: IOverview | null;
  form: boolean;
  onForm: (form: boolean) => void;
}): React.JSX.Element {
  const { overview, form } = props;
  const cap = overview?.max_usd_per_hour;
  return (
    <div className="jp-ppe-header">
      <div className="jp-ppe-headerTop">
        <h2>{form ? 'New cluster' : 'Clusters'}</h2>
        <button
          className={`jp-ppe-button${form ? '' : ' jp-ppe-mod-main'}`}
          onClick={() => props.onForm(!form)}
        >
          {form ? 'Back to clusters' : 'New cluster'}
        </button>
      </div>
      {overview && (
        <div className="jp-ppe-money" aria-live="polite">
          <span title="Who pays">{overview.whose || 'account unknown'}</span>
          {overview.clusters.length > 0 && (
            <span>
              {overview.free && 'on EC2: '}
              <strong>{perHour(overview.usd_per_hour)}</strong> now · {soFar(overview.usd_so_far)}
              {typeof cap === 'number' && ` · limit ${dollars(cap)}/h`}
            </span>
          )}
        </div>
      )}
    </div>
  );
}

/** What runs on no cluster that is shown: launches at their beginning, cleanup. */
function launching(overview: IOverview): IOperation[] {
  const shown = new Set(overview.clusters.map(each => each.name));
  return overview.operations.filter(each => each.state === 'running' && !shown.has(each.cluster));
}

function Clusters(props: {
  overview: IOverview | null;
  services: IViewServices;
  dismissed: Set<string>;
  onChange: () => void;
}): React.JSX.Element | null {
  const { overview, services, dismissed } = props;
  const [wanted, setWanted] = React.useState('');
  if (!overview) {
    return null;
  }
  const many = overview.clusters.length > MANY;
  const found = overview.clusters.filter(each => !many || matches(each, wanted));
  const failed = overview.operations.filter(each => each.state === 'failed' && !dismissed.has(each.id));
  const dismiss = (id: string) => {
    dismissed.add(id);
    props.onChange();
  };
  return (
    <>
      {failed.map(
        ({ id, verb, cluster, problem }) =>
          problem && (
            <Trouble key={id} problem={problem} label={`${verb} ${cluster}`} onDismiss={() => dismiss(id)} />
          )
      )}
      {many && (
        <div className="jp-ppe-find">
          <input
            className="jp-mod-styled"
            type="search"
            aria-label="Find clusters"
            placeholder="Find, such as parked m5"
            value={wanted}
            onChange={({ target }) => setWanted(target.value)}
          />
          <span className="jp-ppe-quiet" role="status">
            {found.length} of {overview.clusters.length}
          </span>
        </div>
      )}
      <ul className="jp-ppe-cards" aria-label="Clusters">
        {launching(overview).map(each => (
          <li key={each.id} className="jp-ppe-card">
            <div className="jp-ppe-cardHead">
              <span className="jp-ppe-name">{each.cluster || 'This account'}</span>
            </div>
            <Progress
              operation={each}
              onStop={
                each.verb === 'launch' ? () => void services.changes.stop(each.id, each.cluster) : undefined
              }
            />
          </li>
        ))}
        {found.map(cluster => (
          <Card
            key={cluster.name}
            cluster={cluster}
            free={overview.free}
            operation={overview.operations.find(each => each.id === cluster.operation)}
            services={services}
          />
        ))}
      </ul>
    </>
  );
}

/** Whether all words are among a cluster's own. */
function matches({ name, state, type, zone, owner }: ICluster, wanted: string): boolean {
  const text = `${name} ${state} ${type} ${zone} ${owner}`.toLowerCase();
  return wanted
    .toLowerCase()
    .split(/\s+/)
    .every(word => text.includes(word));
}

function Empty({ overview, onLaunch }: { overview: IOverview; onLaunch: () => void }): React.JSX.Element {
  return (
    <div className="jp-ppe-empty">
      <clusterIcon.react tag="span" width="48px" height="48px" />
      <p>No clusters yet.</p>
      <p className="jp-ppe-quiet">
        {overview.free
          ? `Launch one on this machine: it is free.${overview.up ? '' : ' The local cloud starts with it.'}`
          : 'You see what it costs before it is launched.'}
      </p>
      <button className="jp-ppe-button jp-ppe-mod-main" onClick={onLaunch}>
        Launch a cluster
      </button>
      <p className="jp-ppe-quiet">
        In a notebook: <code>%ppe_launch</code>
      </p>
    </div>
  );
}
