/**
 * Plugin: cells that begin with `%%remote_r` or `%%R` are R, `%%remote_sh` cells are shell: colour, indentation.
 *
 * The language follows the cell's text inside the editor's own state. So nothing has to watch notebooks, cells
 * or kernels, and a cell's MIME type stays what the kernel says it is.
 */
import { Compartment, EditorState, type Extension, Prec } from '@codemirror/state';
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { EditorExtensionRegistry, IEditorExtensionRegistry } from '@jupyterlab/codemirror';

import { languageOf } from './languages';

const MARKDOWN = 'text/x-ipythongfm';

/** What holds the cell's language; empty where the notebook's own applies. */
const slot = new Compartment();

/** Changes the language in the transaction that changes the magic. */
const followMagic = EditorState.transactionExtender.of(({ docChanged, newDoc, startState }) => {
  const wanted = docChanged && languageOf(newDoc.iterLines());
  return wanted === false || wanted === languageOf(startState.doc.iterLines())
    ? null
    : { effects: slot.reconfigure(wanted ?? []) };
});

function cellMagic(source: string): Extension {
  return [Prec.high(slot.of(languageOf(source.split('\n')) ?? [])), followMagic];
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'ppe-jupyter:highlight',
  description: 'Highlights and indents remote cells in the language they are written in.',
  autoStart: true,
  requires: [IEditorExtensionRegistry],
  activate: (_app: JupyterFrontEnd, extensions: IEditorExtensionRegistry) => {
    extensions.addExtension({
      name: 'ppe-jupyter:cell-magic',
      factory: ({ model }) =>
        model.mimeType === MARKDOWN
          ? null
          : EditorExtensionRegistry.createImmutableExtension(cellMagic(model.sharedModel.getSource()))
    });
  }
};

export default plugin;
