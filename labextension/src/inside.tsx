/** The inside of an unfolded card: nodes, and what the master says; that is asked only while it is looked at. */
import * as React from 'react';

import { type ICluster, type IDetails, type INode, type IProblem, problemOf } from './api';
import { Copy, State, Trouble } from './parts';
import type { IViewServices } from './services';
import { clock, counted } from './words';

const DETAILS_MS = 5000;
const MOST = 5;

export function Inside(props: {
  cluster: ICluster;
  services: IViewServices;
  /** The buttons that are on unfolded cards only. */
  children: React.ReactNode;
}): React.JSX.Element {
  const { cluster, services } = props;
  const up = cluster.actions.includes('connect');
  const { details, problem } = useDetails(cluster.name, up && services.shown, services);
  return (
    <div className="jp-ppe-inside">
      {cluster.advice && cluster.state !== 'running' && <p className="jp-ppe-quiet">{cluster.advice}</p>}
      {props.children}
      {problem && <Trouble problem={problem} label="The master does not say more" />}
      {up && (
        <section>
          <h3>R on the master</h3>
          <Session session={details?.session} />
          <div className="jp-ppe-buttons">
            <button
              className="jp-ppe-button"
              onClick={() => void services.changes.session('interrupt', cluster.name)}
            >
              Interrupt R…
            </button>
            <button
              className="jp-ppe-button"
              onClick={() => void services.changes.session('restart', cluster.name)}
            >
              Restart R…
            </button>
          </div>
        </section>
      )}
      <Lines
        title="Jobs"
        lines={details?.jobs.map(
          ({ id, state, title, since, percent }) =>
            `${id} ${state}${percent === null ? '' : ` ${percent} %`} since ${clock(since)}: ${title}`
        )}
      />
      <section>
        <h3>
          Nodes
          {details &&
            !details.problem &&
            ` · ${details.slots_busy} of ${counted(cluster.slots, 'slot')} busy`}
        </h3>
        <ul className="jp-ppe-nodes">
          {cluster.nodes.map(node => (
            <NodeLine
              key={node.instance_id}
              node={node}
              load={details?.loads.find(each => each.index === node.index)}
            />
          ))}
        </ul>
      </section>
      <Lines
        title="Volumes"
        lines={details?.volumes.map(
          ({ id, gb, state, mounted }) => `${id}: ${gb} GB, ${mounted ? `mounted on ${mounted}` : state}`
        )}
      />
      <Lines title="Watchdog" lines={details ? watchdogLines(details) : []} />
      <Lines title="Events" lines={details?.events.map(({ at, text }) => `${clock(at)} ${text}`)} />
      {cluster.ssh && (
        <section>
          <h3>Terminal</h3>
          <Copy text={cluster.ssh} label="Copy the ssh command line" />
        </section>
      )}
    </div>
  );
}

function Session({ session }: { session: IDetails['session'] | undefined }): React.JSX.Element | null {
  if (!session) {
    return null;
  }
  const { state, since, holder, code, memory_mb, unsaved } = session;
  return (
    <>
      <p>
        {state}
        {since && ` since ${clock(since)}`}
        {holder && `, ${state === 'busy' ? 'held' : 'last used'} by ${holder}`}
        {memory_mb !== null && ` · ${Math.round(memory_mb)} MB`}
        {unsaved && ' · unsaved work'}
      </p>
      {code && <code className="jp-ppe-code">{code}</code>}
    </>
  );
}

function watchdogLines({ watchdog }: IDetails): string[] {
  const verb = watchdog.action === 'park' ? 'parks' : 'terminates';
  const acts = watchdog.acts_at ? [`${verb} the cluster at ${clock(watchdog.acts_at)}`] : [];
  return [...acts, ...watchdog.lines.filter(Boolean)];
}

/** A heading and the first of its lines; nothing if there are none. */
function Lines({ title, lines = [] }: { title: string; lines?: string[] }): React.JSX.Element | null {
  return lines.length ? (
    <section>
      <h3>{title}</h3>
      <ul className="jp-ppe-lines">
        {lines.slice(0, MOST).map((line, index) => (
          <li key={index}>{line}</li>
        ))}
        {lines.length > MOST && <li className="jp-ppe-quiet">and {lines.length - MOST} more</li>}
      </ul>
    </section>
  ) : null;
}

function NodeLine({
  node,
  load
}: {
  node: INode;
  load: IDetails['loads'][number] | undefined;
}): React.JSX.Element {
  const addresses = [...new Set([node.private_ip, node.public_ip])].filter(Boolean).join(' · ');
  const state = node.state === 'running' && !node.up ? 'configuring' : node.state;
  const names = [node.private_dns, node.public_dns].filter(Boolean).join('\n');
  return (
    <li title={`${node.instance_id}\n${names}\nlaunched ${clock(node.launched)}`}>
      <span className="jp-ppe-nodeHead">
        <span>
          {node.index} {node.role}
        </span>
        <State state={state} />
      </span>
      <span className="jp-ppe-quiet">
        {addresses} · {counted(node.slots, 'slot')}
        {node.spot && ' · spot'}
        {node.reason && ` · ${node.reason}`}
      </span>
      {load && (
        <span className="jp-ppe-quiet">
          CPU {Math.round(100 * load.cpu)} % · {load.memory_used_gb.toFixed(1)} of {load.memory_gb.toFixed(1)}{' '}
          GB
        </span>
      )}
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
