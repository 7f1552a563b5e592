/**
 * The launch form: what a cluster is made of, with its price and problems as one types.
 *
 * They come from the same plan that is reviewed and carried out; nothing is decided here.
 */
import * as React from 'react';

import { type IChoices, type IImage, type IInstanceType, type IProblem, type ISpec, problemOf } from './api';
import { LIMITS, THEN } from './limits';
import { Copy, Progress, Trouble } from './parts';
import type { IViewServices } from './sidebar';
import { TypeTable } from './types';
import { usePlan, Verdict } from './verdict';

type Values = Record<string, string | boolean>;

/** The fields that were filled in, of the kinds that ClusterSpec has. */
function specOf(values: Values, numbers: ReadonlySet<string>): ISpec {
  const filled = Object.entries(values).filter(([, value]) => value !== '' && value !== false);
  return Object.fromEntries(filled.map(([key, value]) => [key, numbers.has(key) ? Number(value) : value]));
}

const NUMBERS = new Set(['nodes', 'slots', 'spot_max_usd', ...LIMITS.map(([key]) => key)]);

export function LaunchForm(props: { services: IViewServices; onDone: () => void }): React.JSX.Element {
  const { watch, changes } = props.services;
  const [values, setValues] = React.useState<Values>({ nodes: '2' });
  const [known, setKnown] = React.useState<{
    choices?: IChoices;
    types?: IInstanceType[];
    images?: IImage[];
  }>({});
  const [picking, setPicking] = React.useState(false);
  const [problem, setProblem] = React.useState<IProblem | null>(null);
  const spec = specOf(values, NUMBERS);
  // The first plan of all has the local cloud's image built; it is asked for again when that is done.
  const preparing = watch.overview?.operations.find(
    ({ verb, state }) => verb === 'prepare' && state === 'running'
  );
  const { plan, refusal, asking, planNow } = usePlan(spec, props.services, !preparing);
  const type = String(values.instance_type || known.choices?.defaults.instance_type || '');

  const fetched = (request: Promise<typeof known>) =>
    request.then(
      found => setKnown(before => ({ ...before, ...found })),
      error => setProblem(problemOf(error))
    );
  React.useEffect(() => {
    void fetched(watch.api.choices().then(choices => ({ choices })));
    void fetched(watch.api.types().then(types => ({ types })));
  }, [watch]);
  React.useEffect(() => {
    void fetched(watch.api.images(type).then(images => ({ images })));
  }, [watch, type]);

  const set = (key: string, value: string | boolean) => setValues(before => ({ ...before, [key]: value }));
  const field = (key: string, label: string, rest: React.InputHTMLAttributes<HTMLInputElement> = {}) => (
    <label>
      <span>{label}</span>
      <input
        className="jp-mod-styled"
        name={key}
        value={String(values[key] ?? '')}
        min="0"
        step={rest.type === 'number' ? 'any' : undefined}
        spellCheck={false}
        autoComplete="off"
        onChange={({ target }) => set(key, target.value)}
        {...rest}
      />
    </label>
  );
  const choice = (key: string, label: string, none: string, options: React.JSX.Element[] = []) => (
    <label>
      <span>{label}</span>
      <select
        className="jp-mod-styled"
        name={key}
        value={String(values[key] ?? '')}
        onChange={({ target }) => set(key, target.value)}
      >
        <option value="">{none}</option>
        {options}
      </select>
    </label>
  );
  const launch = async () => {
    const current = await planNow();
    if (current && (await changes.launch(current))) {
      props.onDone();
    }
  };

  return (
    <form
      className="jp-ppe-form"
      aria-label="New cluster"
      onSubmit={event => {
        event.preventDefault();
        void launch();
      }}
    >
      {problem && <Trouble problem={problem} onDismiss={() => setProblem(null)} />}
      {preparing && <Progress operation={preparing} />}
      <div className="jp-ppe-fields">
        {field('name', 'Name', { placeholder: 'a name is found', autoFocus: true })}
        {field('nodes', 'Nodes', { type: 'number', min: 1, step: 1 })}
        <label>
          <span>Type</span>
          <span className="jp-ppe-withButton">
            <input
              className="jp-mod-styled"
              name="instance_type"
              value={String(values.instance_type ?? '')}
              placeholder={type}
              spellCheck={false}
              onChange={({ target }) => set('instance_type', target.value.trim())}
            />
            <button
              type="button"
              className="jp-ppe-button"
              aria-expanded={picking}
              aria-label="Choose the type from a table"
              title="Choose the type from a table"
              onClick={() => setPicking(!picking)}
            >
              {picking ? '▴' : '▾'}
            </button>
          </span>
        </label>
      </div>
      {picking && (
        <TypeTable
          types={known.types}
          chosen={type}
          onChoose={name => {
            set('instance_type', name);
            setPicking(false);
          }}
        />
      )}
      <div className="jp-ppe-fields">
        {field('slots', 'Slots per node', {
          type: 'number',
          min: 1,
          step: 1,
          placeholder: 'its physical cores'
        })}
        {choice(
          'image',
          'Image',
          'the usual one',
          known.images?.map(({ id, name, fits, why, software }) => (
            <option key={id} value={id} disabled={!fits} title={why || softwareText(software)}>
              {name}
              {why && ` (${why})`}
            </option>
          ))
        )}
        {choice(
          'zone',
          'Zone',
          'any that has them',
          known.choices?.zones.map(zone => <option key={zone}>{zone}</option>)
        )}
      </div>
      <details>
        <summary>Limits: what ends it by itself</summary>
        <div className="jp-ppe-fields">
          {LIMITS.map(([key, label, hint]) => (
            <React.Fragment key={key}>
              {field(key, label, { type: 'number', placeholder: hint })}
            </React.Fragment>
          ))}
          {choice(
            'then',
            'Then',
            THEN[0][1],
            THEN.slice(1).map(([value, label]) => (
              <option key={value} value={value}>
                {label}
              </option>
            ))
          )}
        </div>
      </details>
      <details>
        <summary>Key pair, security group, spot</summary>
        <div className="jp-ppe-fields">
          {choice(
            'key_name',
            'Key pair',
            'yours, made if needed',
            known.choices?.key_pairs.map(name => <option key={name}>{name}</option>)
          )}
          {choice(
            'security_group',
            'Security group',
            'one of its own',
            known.choices?.security_groups.map(({ id, name }) => (
              <option key={id} value={id}>
                {name}
              </option>
            ))
          )}
          <label className="jp-ppe-check">
            <input
              type="checkbox"
              name="spot"
              checked={values.spot === true}
              onChange={({ target }) =>
                setValues(({ spot_max_usd: _max, spot_fallback: _fallback, ...rest }) => ({
                  ...rest,
                  spot: target.checked
                }))
              }
            />
            <span>Workers on the spot market: cheaper, may be taken away</span>
          </label>
          {values.spot === true &&
            field('spot_max_usd', 'At most, $ per hour and worker', {
              type: 'number',
              placeholder: 'on-demand price'
            })}
          {values.spot === true && (
            <label className="jp-ppe-check">
              <input
                type="checkbox"
                name="spot_fallback"
                checked={values.spot_fallback === true}
                onChange={({ target }) => set('spot_fallback', target.checked)}
              />
              <span>Else on demand</span>
            </label>
          )}
        </div>
      </details>
      <Verdict plan={plan} refusal={refusal} asking={asking} />
      <button type="submit" className="jp-ppe-button jp-ppe-mod-main" disabled={!plan?.ok}>
        Review and launch…
      </button>
      {plan?.ok && <Copy text={plan.magic} label="Copy the magic that does the same" />}
    </form>
  );
}

function softwareText(software: Record<string, string>): string {
  return Object.entries(software)
    .map(([name, version]) => `${name} ${version}`)
    .join(', ');
}
