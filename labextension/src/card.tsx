/** A cluster in the sidebar: its state, size and cost; unfolded its nodes, its master's words and all actions. */
import * as React from 'react';

import { type IDetails, type ICluster, type INode, type IOperation, type IProblem, problemOf } from './api';
import { Copy, Progress, State, Trouble, useNow } from './parts';
import type { IViewServices } from './sidebar';
import { clock, counted, perHour, soFar, span } from './words';

const DETAILS_MS = 10_000;
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
    <li className="ppe-card" aria-label={`Cluster ${cluster.name}, ${cluster.state}`}>
      <button className="ppe-cardHead" aria-expanded={open} aria-controls={body} onClick={() => setOpen(!open)}>
        <span className="ppe-caret" aria-hidden="true" />
        <span className="ppe-name" title={cluster.name}>
          {cluster.name}
        </span>
        <State state={cluster.state} />
      </button>
      <Facts cluster={cluster} free={props.free} now={now} />
      {cluster.troubles.map(text => (
        <p className="ppe-warning" key={text}>
          {text}
        </p>
      ))}
      {operation && (
        <Progress
          operation={operation}
          onStop={
            operation.verb === 'launch' ? () => void services.changes.stop(operation.id, cluster.name) : undefined
          }
        />
      )}
      <Buttons actions={FIRST} cluster={cluster} services={services} />
      <div id={body} hidden={!open}>
        {open && <Inside cluster={cluster} services={services} />}
      </div>
    </li>
  );
}

function Facts({ cluster, free, now }: { cluster: ICluster; free: boolean; now: number }): React.JSX.Element {
  const { deadline } = cluster;
  return (
    <div className="ppe-facts">
      <div>
        {cluster.nodes_up} of {counted(cluster.nodes_wanted, 'node')} up · {counted(cluster.slots, 'slot')}
        {cluster.spot && ' · spot'}
      </div>
      <div>
        {[cluster.type, cluster.zone].filter(Boolean).join(' · ')} · {span(now - Date.parse(cluster.launched))} old
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
    <div className="ppe-buttons">
      {shown.map(([verb, label, caption]) => (
        <button
          key={verb}
          className={`ppe-button${verb === 'terminate' ? ' ppe-mod-end' : ''}`}
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

/** What is asked of the master only while it is looked at. */
function Inside({ cluster, services }: { cluster: ICluster; services: IViewServices }): React.JSX.Element {
  const up = cluster.actions.includes('connect');
  const { details, problem } = useDetails(cluster.name, up && services.shown, services);
  const { session, watchdog } = details ?? {};
  return (
    <div className="ppe-inside">
      {cluster.advice && cluster.state !== 'running' && <p className="ppe-quiet">{cluster.advice}</p>}
      <Buttons actions={SECOND} cluster={cluster} services={services} />
      {problem && <Trouble problem={problem} label="The master does not say more" />}
      {watchdog?.lines.some(Boolean) && (
        <section>
          <h4>Watchdog</h4>
          {watchdog.acts_at && (
            <p>
              {watchdog.action === 'park' ? 'parks it' : 'terminates it'} at {clock(watchdog.acts_at)}
            </p>
          )}
          {watchdog.lines.filter(Boolean).map((line, index) => (
            <p key={index}>{line}</p>
          ))}
        </section>
      )}
      {up && (
        <section>
          <h4>R on the master</h4>
          {session && (
            <p>
              {session.state} since {clock(session.since)}
              {session.holder && `, by ${session.holder}`} · {Math.round(session.memory_mb)} MB
              {session.unsaved && ' · unsaved work'}
            </p>
          )}
          {session?.code && <code className="ppe-code">{session.code}</code>}
          <div className="ppe-buttons">
            <button className="ppe-button" onClick={() => void services.changes.session('interrupt', cluster.name)}>
              Interrupt R…
            </button>
            <button className="ppe-button" onClick={() => void services.changes.session('restart', cluster.name)}>
              Restart R…
            </button>
          </div>
        </section>
      )}
      <section>
        <h4>Nodes</h4>
        <ul className="ppe-nodes">
          {cluster.nodes.map(node => (
            <NodeLine key={node.instance_id} node={node} />
          ))}
        </ul>
      </section>
      {cluster.ssh && (
        <section>
          <h4>Terminal</h4>
          <Copy text={cluster.ssh} label="Copy the ssh command line" />
        </section>
      )}
    </div>
  );
}

function NodeLine({ node }: { node: INode }): React.JSX.Element {
  const addresses = [...new Set([node.private_ip, node.public_ip])].filter(Boolean).join(' · ');
  const state = node.state === 'running' && !node.up ? 'configuring' : node.state;
  const names = [node.private_dns, node.public_dns].filter(Boolean).join('\n');
  return (
    <li title={`${node.instance_id}\n${names}\nlaunched ${clock(node.launched)}`}>
      <span className="ppe-nodeHead">
        <span>
          {node.index} {node.role}
        </span>
        <State state={state} />
      </span>
      <span className="ppe-quiet">
        {addresses} · {counted(node.slots, 'slot')}
        {node.spot && ' · spot'}
        {node.reason && ` · ${node.reason}`}
      </span>
    </li>
  );
}

function useDetails(
  name: string,
  asked: boolean,
  services: IViewServices
): { details: IDetails | null; problem: IProblem | null } {
  const [told, setTold] = React.useState<ReturnType<typeof useDetails>>({ details: null, problem: null });
  React.useEffect(() => {
    if (!asked) {
      return;
    }
    const abort = new AbortController();
    let timer = 0;
    const ask = async () => {
      try {
        if (!document.hidden) {
          const details = await services.watch.api.details(name, abort.signal);
          setTold({ details, problem: details.problem });
        }
      } catch (error) {
        if (!abort.signal.aborted) {
          setTold({ details: null, problem: problemOf(error) });
        }
      }
      if (!abort.signal.aborted) {
        timer = window.setTimeout(() => void ask(), DETAILS_MS);
      }
    };
    void ask();
    return () => {
      abort.abort();
      window.clearTimeout(timer);
    };
  }, [name, asked, services.watch]);
  return told;
}
