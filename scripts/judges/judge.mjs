// Judges what a running appliance issues, with other people's libraries only:
//
//   judge.mjs --offer LINK [--tx-code CODE] --ca FILE --iaca FILE --format mso_mdoc|dc+sd-jwt|jwt_vc_json
//   judge.mjs --credential FILE --ca FILE --iaca FILE --format …
//
// The first form takes the offer as a wallet (@openid4vc/openid4vci) and judges
// the credential; the second judges a credential that is there already. One
// JSON line is printed for each check; the exit status is 0 when all passed, 1
// when one failed, 2 when the command line is wrong.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { Checks } from './checks.mjs'

const judges = { mso_mdoc: './mdoc.mjs', 'dc+sd-jwt': './sdjwt.mjs', jwt_vc_json: './jwtvc.mjs' }

function commandLine() {
  const options = Object.fromEntries(['offer', 'tx-code', 'credential', 'ca', 'iaca', 'format', 'binding'].map((name) => [name, { type: 'string' }]))
  try {
    const { values } = parseArgs({ options })
    if (!values.ca || !values.iaca || !judges[values.format] || !values.offer === !values.credential) {
      throw new Error('--ca, --iaca, a known --format and one of --offer and --credential are needed')
    }
    return values
  } catch (error) {
    console.error(`judge: ${error.message}`)
    process.exit(2)
  }
}

// node reads NODE_EXTRA_CA_CERTS once, when it starts.
function withCA(file) {
  if (process.env.NODE_EXTRA_CA_CERTS === file) return
  const child = spawnSync(process.execPath, process.argv.slice(1), { stdio: 'inherit', env: { ...process.env, NODE_EXTRA_CA_CERTS: file } })
  process.exit(child.status ?? 1)
}

const options = commandLine()
withCA(options.ca)
const checks = new Checks()
const iaca = readFileSync(options.iaca)
let credential, holder
if (options.offer) {
  const { accept } = await import('./wallet.mjs')
  const taken = await checks.run('wallet: the offer is taken', () => accept(checks, options))
  credential = taken?.credential
  holder = taken?.publicJwk
} else {
  credential = readFileSync(options.credential, 'utf8').trim()
}
if (credential) {
  const { judge } = await import(judges[options.format])
  await judge(checks, credential, { iaca, holder })
}
process.exit(checks.done())
