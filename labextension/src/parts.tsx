/** Parts: small things that every view shows alike: a state, a problem, progress, a text to copy. */
import { Clipboard } from '@jupyterlab/apputils';
import * as React from 'react';

import type { IOperation, IProblem } from './api';
import { doing, firstLine, look, span } from './words';

const SHAPES = {
  good: <circle cx="6" cy="6" r="5" />,
  moving: (
    <>
      <circle cx="6" cy="6" r="4.25" fill="none" stroke="currentColor" strokeWidth="1.5" />
      <path d="M6 1.75a4.25 4.25 0 0 1 0 8.5z" />
    </>
  ),
  bad: <path d="M6 .8 11.6 11H.4z" />,
  parked: <path d="M1.5 1h3.2v10H1.5zm5.8 0h3.2v10H7.3z" />,
  over: <path d="m2.4 1 3.6 3.6L9.6 1 11 2.4 7.4 6 11 9.6 9.6 11 6 7.4 2.4 11 1 9.6 4.6 6 1 2.4z" />
};

/** A shape and colour beside the state's word. */
export function State({ state, word = true }: { state: string; word?: boolean }): React.JSX.Element {
  const seen = look(state);
  return (
    <span className={`jp-ppe-state jp-ppe-mod-${seen}`} title={state}>
      <svg viewBox="0 0 12 12" fill="currentColor" aria-hidden="true">
        {SHAPES[seen]}
      </svg>
      {word ? <span>{state}</span> : <span className="jp-ppe-hidden">{state}</span>}
    </span>
  );
}

export function Grade({ grade }: { grade: 'error' | 'warning' | 'info' }): React.JSX.Element {
  return <strong className={`jp-ppe-grade jp-ppe-mod-${grade}`}>{grade}</strong>;
}

/** Its first line, all of it when unfolded. */
export function Trouble(props: {
  problem: IProblem;
  label?: string;
  onAgain?: () => void;
  onDismiss?: () => void;
}): React.JSX.Element {
  const { title, status, detail } = props.problem;
  return (
    <div className="jp-ppe-trouble" role="alert">
      <details>
        <summary>
          <Grade grade="error" /> {props.label ? `${props.label}: ` : ''}
          {status ? firstLine(detail) : title}
        </summary>
        <p>{status ? `${title} (${status})` : detail}</p>
        {status !== 0 && <pre>{detail}</pre>}
      </details>
      {props.onAgain && (
        <button className="jp-ppe-button" onClick={props.onAgain}>
          Try again
        </button>
      )}
      {props.onDismiss && (
        <button className="jp-ppe-button" onClick={props.onDismiss} aria-label="Dismiss this problem">
          Dismiss
        </button>
      )}
    </div>
  );
}

/** How far an operation is; `onStop` if it can be stopped. */
export function Progress(props: { operation: IOperation; onStop?: () => void }): React.JSX.Element {
  const { operation, onStop } = props;
  const { phase, ready, total, unit, message, elapsed } = operation;
  const counts = total ? (unit === '%' ? `, ${ready}%` : `, ${ready} of ${total} ${unit}`) : '';
  const seconds = elapsed < 60 ? `${Math.round(elapsed)} s` : span(elapsed * 1000);
  const verb = doing(operation);
  return (
    <div className="jp-ppe-progress">
      <div className="jp-ppe-progressLine">
        <span title={message}>
          {verb}: {phase}
          {counts} · {seconds}
        </span>
        {onStop && (
          <button className="jp-ppe-button" onClick={onStop} disabled={phase === 'stopping'}>
            Stop
          </button>
        )}
      </div>
      <progress
        max={total || undefined}
        value={total ? ready : undefined}
        aria-label={`${verb} ${operation.cluster}`}
      />
    </div>
  );
}

/** A line that a click copies: the magic that would do the same, an ssh command. */
export function Copy({ text, label }: { text: string; label: string }): React.JSX.Element {
  const [copied, setCopied] = React.useState(false);
  const copy = () => {
    Clipboard.copyToSystem(text);
    setCopied(true);
    window.setTimeout(() => setCopied(false), 1500);
  };
  return (
    <div className="jp-ppe-copy">
      <code title={text}>{text}</code>
      <button className="jp-ppe-button" onClick={copy} aria-label={label} title={label}>
        {copied ? 'Copied' : 'Copy'}
      </button>
    </div>
  );
}

export function Rows({ rows }: { rows: [string, string][] }): React.JSX.Element {
  return (
    <dl className="jp-ppe-rows">
      {rows.map(([label, text], index) => (
        <React.Fragment key={index}>
          <dt>{rows[index - 1]?.[0] === label ? '' : label}</dt>
          <dd>{text}</dd>
        </React.Fragment>
      ))}
    </dl>
  );
}

/** The time; what shows ages and times left is shown anew every half minute. */
export function useNow(): number {
  const [, setTick] = React.useState(0);
  React.useEffect(() => {
    const timer = window.setInterval(() => setTick(tick => tick + 1), 30_000);
    return () => window.clearInterval(timer);
  }, []);
  return Date.now();
}
