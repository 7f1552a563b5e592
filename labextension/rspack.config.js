// Compiles the TypeScript sources in the bundler itself, so that a build needs
// neither tsc nor JupyterLab's packages (JupyterLab shares those at run time).
module.exports = {
  // In concatenated modules the builder finds no licence to ship (third-party-licenses.json).
  optimization: { concatenateModules: false },
  resolve: { extensions: ['.ts', '.tsx', '.js'] },
  module: {
    rules: [
      {
        test: /\.tsx?$/,
        loader: 'builtin:swc-loader',
        options: { jsc: { parser: { syntax: 'typescript', tsx: true }, target: 'es2022' } }
      }
    ]
  }
};
