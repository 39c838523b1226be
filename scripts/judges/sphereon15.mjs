// A wallet of draft 15 on @sphereon/oid4vci-client 0.20.
import { OpenID4VCIClientV1_0_15 } from '@sphereon/oid4vci-client'
import { Keys, notify } from './sphereon.mjs'

// variants are what --with may name.
export const variants = ['dpop', 'notification', 'private-key-jwt', 'scope']

// accept takes the offer; see openid4vci.mjs.
export async function accept(checks, options) {
  const keys = await new Keys(options).make()
  const client = await OpenID4VCIClientV1_0_15.fromURI({ uri: options.offer, alg: options.alg, createAuthorizationRequestURL: false })
  const [id] = client.getCredentialOfferConfigurationIds()
  const configuration = client.endpointMetadata.credentialIssuerMetadata.credential_configurations_supported[id]
  checks.expect('sphereon: the offered configuration has the expected format', configuration?.format === options.format, configuration?.format)
  const scope = options.with.has('scope') && { additionalRequestParams: { scope: configuration.scope } }
  const token = await client.acquireAccessToken({ pin: options['tx-code'], createDPoPOpts: keys.dpop, asOpts: await keys.authorizationServer(), ...scope })
  checks.report('sphereon: token', true, token.token_type)
  const response = await client.acquireCredentials({
    credentialConfigurationId: id,
    format: options.format,
    alg: options.alg,
    ...keys.binding,
    proofCallbacks: keys.proofCallbacks,
    createDPoPOpts: keys.dpop,
  })
  checks.expect('sphereon: one credential for one key', response.credentials?.length === 1, Object.keys(response))
  if (options.with.has('notification')) {
    await notify(checks, (...args) => client.sendNotification(...args), client.endpointMetadata, response.notification_id)
  }
  return [{ credential: response.credentials[0].credential, holder: keys.holder.publicJwk }]
}
