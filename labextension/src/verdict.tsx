/** What the planner says of a launch as it is typed: its price, and what is wrong with it. */
import * as React from 'react';

import { type IPlan, type IProblem, type ISpec, problemOf } from './api';
import { Grade } from './parts';
import type { IViewServices } from './services';
import { perHour } from './words';

const DEBOUNCE_MS = 350;

/** What the planner says of the fields as they are. */
export function Verdict(props: {
  plan: IPlan | null;
  refusal: IProblem | null;
  asking: boolean;
}): React.JSX.Element {
  const { plan, refusal, asking } = props;
  return (
    <div
      className={`jp-ppe-verdict${asking ? ' jp-ppe-mod-asking' : ''}`}
      aria-live="polite"
      aria-busy={asking}
    >
      {plan && (
        <div className="jp-ppe-price">
          <strong>{perHour(plan.usd_per_hour)}</strong>{' '}
          {plan.rows.find(([label]) => label === 'pays')?.[1].startsWith('local cloud')
            ? 'on EC2; free here'
            : ''}
        </div>
      )}
      {!plan && !refusal && <div className="jp-ppe-quiet">Planning…</div>}
      <ul className="jp-ppe-problems" aria-label="Problems">
        {refusal && (
          <li>
            <Grade grade="error" /> {refusal.detail}
          </li>
        )}
        {plan?.problems.map(({ grade, text }, index) => (
          <li key={index}>
            <Grade grade={grade} /> {text}
          </li>
        ))}
      </ul>
    </div>
  );
}

/** The plan of the newest spec, a moment after the last change and while it is `possible`; `planNow` does not wait. */
export function usePlan(spec: ISpec, services: IViewServices, possible: boolean) {
  const text = JSON.stringify(spec);
  const [told, setTold] = React.useState<{ plan: IPlan | null; refusal: IProblem | null; of: string }>({
    plan: null,
    refusal: null,
    of: ''
  });
  const ask = React.useCallback(
    async (wanted: string, signal?: AbortSignal): Promise<IPlan | null> => {
      try {
        const plan = await services.watch.api.planLaunch(JSON.parse(wanted), signal);
        setTold({ plan, refusal: null, of: wanted });
        return plan.ok ? plan : null;
      } catch (error) {
        if (!signal?.aborted) {
          setTold({ plan: null, refusal: problemOf(error), of: wanted });
        }
        return null;
      }
    },
    [services.watch]
  );
  React.useEffect(() => {
    if (!possible) {
      return;
    }
    const abort = new AbortController();
    const timer = window.setTimeout(() => void ask(text, abort.signal), DEBOUNCE_MS);
    return () => {
      window.clearTimeout(timer);
      abort.abort();
    };
  }, [text, ask, possible]);
  return { ...told, asking: told.of !== text, planNow: () => ask(text) };
}
