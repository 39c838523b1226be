// Judges what a running appliance issues, with other people's libraries only:
//
//   judge.mjs --offer LINK --ca FILE --iaca FILE --format mso_mdoc|dc+sd-jwt|vc+sd-jwt|jwt_vc_json
//             [--library openid4vci|sphereon-15|sphereon-13] [--version V1|Draft15|Draft14] [--with VARIANT,…]
//             [--tx-code CODE] [--binding jwk|did:jwk|x5c] [--alg ES256|ES384|EdDSA] [--keys N] [--encryption ALG:ENC]
//             [--attester FOLDER] [--client-id ID --client-key FILE]
//   judge.mjs --credential FILE --ca FILE --iaca FILE --format …
//
// The first form takes the offer as a wallet and judges each credential; the
// second judges a credential that is there already. One JSON line is printed for
// each check; the exit status is 0 when all passed, 1 when one failed, 2 when
// the command line is wrong, or asks of a library what it cannot do.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { Checks } from './checks.mjs'

const judges = { mso_mdoc: './mdoc.mjs', 'dc+sd-jwt': './sdjwt.mjs', 'vc+sd-jwt': './sdjwt.mjs', jwt_vc_json: './jwtvc.mjs' }
const wallets = { openid4vci: './openid4vci.mjs', 'sphereon-15': './sphereon15.mjs', 'sphereon-13': './sphereon13.mjs' }
const text = { type: 'string' }

function commandLine() {
  const options = {
    offer: text, credential: text, ca: text, iaca: text, format: text, 'tx-code': text, binding: text, encryption: text, attester: text,
    'client-id': text, 'client-key': text,
    library: { ...text, default: 'openid4vci' },
    version: { ...text, default: 'V1' },
    with: { ...text, default: '' },
    alg: { ...text, default: 'ES256' },
    keys: { ...text, default: '1' },
  }
  try {
    const { values } = parseArgs({ options })
    if (!values.ca || !values.iaca || !judges[values.format] || !wallets[values.library] || !values.offer === !values.credential) {
      throw new Error('--ca, --iaca, a known --format, a known --library and one of --offer and --credential are needed')
    }
    return { ...values, with: new Set(values.with.split(',').filter(Boolean)), keys: Number(values.keys) }
  } catch (error) {
    wrong(error.message)
  }
}

function wrong(message) {
  console.error(`judge: ${message}`)
  process.exit(2)
}

// node reads NODE_EXTRA_CA_CERTS once, when it starts.
function withCA(file) {
  if (process.env.NODE_EXTRA_CA_CERTS === file) return
  const child = spawnSync(process.execPath, process.argv.slice(1), { stdio: 'inherit', env: { ...process.env, NODE_EXTRA_CA_CERTS: file } })
  process.exit(child.status ?? 1)
}

// take takes the offer as a wallet of the library does.
async function take(checks, options) {
  const { accept, variants } = await import(wallets[options.library])
  const unknown = [...options.with].filter((name) => !variants.includes(name))
  if (unknown.length > 0) wrong(`${options.library} has no variant ${unknown.join(', ')}; it has ${variants.join(', ')}`)
  return (await checks.run('wallet: the offer is taken', () => accept(checks, options))) ?? []
}

const options = commandLine()
withCA(options.ca)
options.iacaBytes = readFileSync(options.iaca)
const checks = new Checks()
const taken = options.offer ? await take(checks, options) : [{ credential: readFileSync(options.credential, 'utf8').trim() }]
const { judge } = await import(judges[options.format])
for (const { credential, holder } of taken) await judge(checks, credential, { iaca: options.iacaBytes, holder, format: options.format })
process.exit(checks.done())
