/** A cluster in the sidebar: its state, size and cost; unfolded its nodes, its master's words and all actions. */
import * as React from 'react';

import type { ICluster, IOperation } from './api';
import { Inside } from './inside';
import { Progress, State, useNow } from './parts';
import type { IViewServices } from './services';
import { clock, counted, perHour, soFar, span } from './words';

/** The order of the buttons; the first row is on every card, the second on unfolded ones. */
const FIRST: readonly (readonly [string, string, string])[] = [
  ['connect', 'Connect', 'Insert a cell into the open notebook that connects it to this cluster'],
  ['rstudio', 'RStudio', 'Open RStudio of the master in a tab'],
  ['start', 'Start…', 'Bring the parked cluster back'],
  ['retry', 'Mend…', 'Wait for lost nodes, replace them or go on without'],
  ['terminate', 'Terminate…', 'End the cluster for good; shows first what would be lost']
];
const SECOND: readonly (readonly [string, string, string])[] = [
  ['resize', 'Resize…', 'More nodes, or fewer'],
  ['limit', 'Limits…', 'What ends the cluster by itself'],
  ['park', 'Park…', 'End the workers, stop the master; its disk stays'],
  ['reboot', 'Reboot…', 'Boot all nodes anew']
];

export function Card(props: {
  cluster: ICluster;
  operation: IOperation | undefined;
  free: boolean;
  services: IViewServices;
}): React.JSX.Element {
  const { cluster, operation, services } = props;
  const [open, setOpen] = React.useState(false);
  const now = useNow();
  const body = `ppe-cluster-${cluster.name}`;
  return (
    <li className="jp-ppe-card" aria-label={`Cluster ${cluster.name}, ${cluster.state}`}>
      <button
        className="jp-ppe-cardHead"
        aria-expanded={open}
        aria-controls={body}
        onClick={() => setOpen(!open)}
      >
        <span className="jp-ppe-caret" aria-hidden="true" />
        <span className="jp-ppe-name" title={cluster.name}>
          {cluster.name}
        </span>
        <State state={cluster.state} />
      </button>
      <Facts cluster={cluster} free={props.free} now={now} />
      {cluster.troubles.map(text => (
        <p className="jp-ppe-warning" key={text}>
          {text}
        </p>
      ))}
      {operation && (
        <Progress
          operation={operation}
          onStop={
            operation.verb === 'launch'
              ? () => void services.changes.stop(operation.id, cluster.name)
              : undefined
          }
        />
      )}
      <Buttons actions={FIRST} cluster={cluster} services={services} />
      <div id={body} hidden={!open}>
        {open && (
          <Inside cluster={cluster} services={services}>
            <Buttons actions={SECOND} cluster={cluster} services={services} />
          </Inside>
        )}
      </div>
    </li>
  );
}

function Facts({ cluster, free, now }: { cluster: ICluster; free: boolean; now: number }): React.JSX.Element {
  const { deadline } = cluster;
  return (
    <div className="jp-ppe-facts">
      <div>
        {cluster.nodes_up} of {counted(cluster.nodes_wanted, 'node')} up · {counted(cluster.slots, 'slot')}
        {cluster.spot && ' · spot'}
      </div>
      <div>
        {[cluster.type, cluster.zone].filter(Boolean).join(' · ')} ·{' '}
        {span(now - Date.parse(cluster.launched))} old
      </div>
      <div title={free ? 'The local cloud is free; this is what it would cost on EC2' : undefined}>
        {free ? 'on EC2 ' : ''}
        {perHour(cluster.usd_per_hour)} · {soFar(cluster.usd_so_far)}
        {cluster.budget_usd !== null && ` of $${cluster.budget_usd}`}
      </div>
      {deadline && (
        <div>
          ends by itself at {clock(deadline)}, in {span(Date.parse(deadline) - now)}
        </div>
      )}
      {!cluster.mine && <div>launched by {cluster.owner.split(' ', 1)[0]}</div>}
    </div>
  );
}

function Buttons(props: {
  actions: typeof FIRST;
  cluster: ICluster;
  services: IViewServices;
}): React.JSX.Element | null {
  const { cluster, services } = props;
  const [busy, setBusy] = React.useState('');
  const shown = props.actions.filter(([verb]) => cluster.actions.includes(verb));
  const act = async (verb: string) => {
    setBusy(verb);
    try {
      await services.act(verb, cluster);
    } finally {
      setBusy('');
    }
  };
  return shown.length ? (
    <div className="jp-ppe-buttons">
      {shown.map(([verb, label, caption]) => (
        <button
          key={verb}
          className={`jp-ppe-button${verb === 'terminate' ? ' jp-ppe-mod-end' : ''}`}
          title={caption}
          aria-label={`${label.replace('…', '')} ${cluster.name}`}
          aria-busy={busy === verb}
          disabled={busy !== ''}
          onClick={() => void act(verb)}
        >
          {label}
        </button>
      ))}
    </div>
  ) : null;
}
