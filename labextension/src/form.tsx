/**
 * The launch form: what a cluster is made of, with its price and problems as one types.
 *
 * They come from the same plan that is reviewed and carried out; nothing is decided here.
 */
import * as React from 'react';

import { type IChoices, type IImage, type IInstanceType, type IProblem, type ISpec, problemOf } from './api';
import { Check, Choice, Field, type Values } from './fields';
import { LIMITS, THEN } from './limits';
import { Copy, Progress, Trouble } from './parts';
import type { IViewServices } from './services';
import { TypeTable } from './types';
import { usePlan, Verdict } from './verdict';
import type { Watch } from './watch';

export const NEW: Values = { nodes: '2' };
const NUMBERS = new Set<string>(['nodes', 'slots', 'spot_max_usd', ...LIMITS.map(([key]) => key)]);
const OF_SPOT = new Set(['spot_max_usd', 'spot_fallback']);

/** The fields that were filled in, of the kinds that ClusterSpec has. */
function specOf(values: Values): ISpec {
  const filled = Object.entries(values).filter(
    ([key, value]) => value !== '' && value !== false && (values.spot === true || !OF_SPOT.has(key))
  );
  return Object.fromEntries(filled.map(([key, value]) => [key, NUMBERS.has(key) ? Number(value) : value]));
}

export function LaunchForm(props: {
  services: IViewServices;
  /** What was filled in before, and is kept while the form is not shown. */
  draft: { values: Values };
  onDone: () => void;
}): React.JSX.Element {
  const { draft, services, onDone } = props;
  const { watch, changes } = services;
  const [values, setValues] = React.useState(draft.values);
  React.useEffect(() => {
    draft.values = values;
  }, [draft, values]);
  // The first plan of all has the local cloud's image built; it is asked for again when that is done.
  const preparing = watch.overview?.operations.find(
    ({ verb, state }) => verb === 'prepare' && state === 'running'
  );
  const { plan, refusal, asking, planNow } = usePlan(specOf(values), services, !preparing);
  const { known, problem, dismiss } = useKnown(watch, String(values.instance_type ?? ''));
  const set = (key: string, value: string | boolean) => setValues(before => ({ ...before, [key]: value }));
  const part = { values, set, known };
  const launch = async () => {
    const current = await planNow();
    if (current && (await changes.launch(current))) {
      draft.values = NEW;
      onDone();
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
      {problem && <Trouble problem={problem} onDismiss={dismiss} />}
      {preparing && <Progress operation={preparing} />}
      <Size {...part} />
      <Place {...part} />
      <Limiting {...part} />
      <Access {...part} />
      <Verdict plan={plan} refusal={refusal} asking={asking} />
      <button type="submit" className="jp-ppe-button jp-ppe-mod-main" disabled={!plan?.ok}>
        Review and launch…
      </button>
      {plan?.ok && <Copy text={plan.magic} label="Copy the magic that does the same" />}
    </form>
  );
}

interface IKnown {
  choices?: IChoices;
  types?: IInstanceType[];
  images?: IImage[];
}

interface IPart {
  values: Values;
  set(key: string, value: string | boolean): void;
  known: IKnown;
}

/** What there is to choose from; of images, which fit the type. */
function useKnown(watch: Watch, chosen: string) {
  const [known, setKnown] = React.useState<IKnown>({});
  const [problem, setProblem] = React.useState<IProblem | null>(null);
  const fetched = (request: Promise<IKnown>) =>
    request.then(
      found => setKnown(before => ({ ...before, ...found })),
      error => setProblem(problemOf(error))
    );
  React.useEffect(() => {
    void fetched(watch.api.choices().then(choices => ({ choices })));
    void fetched(watch.api.types().then(types => ({ types })));
  }, [watch]);
  const type = chosen || String(known.choices?.defaults.instance_type ?? '');
  React.useEffect(() => {
    // While it is typed, it is none.
    if (known.types?.some(each => each.name === type)) {
      void fetched(watch.api.images(type).then(images => ({ images })));
    }
  }, [watch, type, known.types]);
  return { known, problem, dismiss: () => setProblem(null) };
}

function Size({ known, ...fields }: IPart): React.JSX.Element {
  const { values, set } = fields;
  const [picking, setPicking] = React.useState(false);
  const type = String(values.instance_type || known.choices?.defaults.instance_type || '');
  return (
    <>
      <div className="jp-ppe-fields">
        <Field {...fields} name="name" label="Name" placeholder="a name is found" autoFocus />
        <Field {...fields} name="nodes" label="Nodes" type="number" min={1} step={1} />
        <div className="jp-ppe-withButton">
          <Field {...fields} name="instance_type" label="Type" placeholder={type} />
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
        </div>
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
    </>
  );
}

function Place({ known, ...fields }: IPart): React.JSX.Element {
  return (
    <div className="jp-ppe-fields">
      <Field
        {...fields}
        name="slots"
        label="Slots per node"
        type="number"
        min={1}
        step={1}
        placeholder="its physical cores"
      />
      <Choice {...fields} name="image" label="Image" none="the usual one">
        {known.images?.map(({ id, name, fits, why, software }) => (
          <option key={id} value={id} disabled={!fits} title={why || softwareText(software)}>
            {name}
            {why && ` (${why})`}
          </option>
        ))}
      </Choice>
      <Choice {...fields} name="zone" label="Zone" none="any that fits">
        {known.choices?.zones.map(zone => (
          <option key={zone}>{zone}</option>
        ))}
      </Choice>
    </div>
  );
}

function softwareText(software: Record<string, string>): string {
  return Object.entries(software)
    .map(([name, version]) => `${name} ${version}`)
    .join(', ');
}

function Limiting({ known: _, ...fields }: IPart): React.JSX.Element {
  return (
    <details>
      <summary>Limits: what ends it by itself</summary>
      <div className="jp-ppe-fields">
        {LIMITS.map(([key, label, hint]) => (
          <Field key={key} {...fields} name={key} label={label} type="number" placeholder={hint} />
        ))}
        <Choice {...fields} name="then" label="Then" none={THEN[0][1]}>
          {THEN.slice(1).map(([value, label]) => (
            <option key={value} value={value}>
              {label}
            </option>
          ))}
        </Choice>
      </div>
    </details>
  );
}

function Access({ known, ...fields }: IPart): React.JSX.Element {
  return (
    <details>
      <summary>Key pair, security group, spot, RStudio</summary>
      <div className="jp-ppe-fields">
        <Choice {...fields} name="key_name" label="Key pair" none="yours, made if needed">
          {known.choices?.key_pairs.map(name => (
            <option key={name}>{name}</option>
          ))}
        </Choice>
        <Choice {...fields} name="security_group" label="Security group" none="one of its own">
          {known.choices?.security_groups.map(({ id, name }) => (
            <option key={id} value={id}>
              {name}
            </option>
          ))}
        </Choice>
        <Check {...fields} name="spot" label="Workers on the spot market: cheaper, may be taken away" />
        {fields.values.spot === true && (
          <>
            <Field
              {...fields}
              name="spot_max_usd"
              label="At most, $ per hour and worker"
              type="number"
              placeholder="on-demand price"
            />
            <Check {...fields} name="spot_fallback" label="Else on demand" />
          </>
        )}
        <Check {...fields} name="rstudio" label="RStudio Server on the master" />
      </div>
    </details>
  );
}
