// A library may take console.log away.
const print = console.log.bind(console)

// Checks prints one JSON line a check and remembers whether any failed.
export class Checks {
  #failed = 0
  #passed = 0

  report(check, passed, detail) {
    if (passed) this.#passed++
    else this.#failed++
    print(JSON.stringify({ check, passed, ...(detail === undefined ? {} : { detail: String(detail) }) }))
  }

  // run reports whether action ended without an error, and returns its result.
  async run(check, action) {
    try {
      const result = await action()
      this.report(check, true)
      return result
    } catch (error) {
      this.report(check, false, explain(error))
      return undefined
    }
  }

  expect(check, passed, detail) {
    this.report(check, Boolean(passed), passed ? undefined : detail)
  }

  // done returns the exit status.
  done() {
    print(JSON.stringify({ check: 'all', passed: this.#failed === 0 && this.#passed > 0, detail: `${this.#passed} passed, ${this.#failed} failed` }))
    return this.#failed === 0 && this.#passed > 0 ? 0 : 1
  }
}

function explain(error) {
  const parts = []
  for (let e = error; e && parts.length < 4; e = e.cause) parts.push(e.message ?? e)
  return parts.join(': ').slice(0, 2000)
}
