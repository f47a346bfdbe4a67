-- What is known and not known of credits: one row a charged resource and product line, and one a run whose credits
-- nothing tells (`basis` 'unknown', `credits` null). `credit_ledger` and `unknown_credits` are its two parts.
--
-- The charged thing is the resource (kind, ID). Where several runs tell of it, the order is: its own row, then the
-- breakdown of the run that caused it, then a workflow's breakdown. Where only a total is known, what lies beyond the
-- run's own line is charged to its parse run (an edit run's: to its form detection) and marked as inferred. A workflow
-- run by itself charges nothing. A line's day is that of its resource's own creation, else of the run that caused it,
-- else null.
--
-- Processor, file, source, metadata and workspace are the resource's own, each else those of the run that caused it: a
-- parse run belongs to the extractor that had it made, a child of which only the workflow tells to the workflow.
WITH charging AS MATERIALIZED (
    -- What is asked of a run, read once: each day's file would else be opened for every mention of it below.
    SELECT
        run_id,
        kind,
        workspace_id,
        status,
        credits,
        total_credits,
        breakdown,
        created_at,
        initial_run_at,
        processor_id,
        processor_name,
        processor_version,
        file_id,
        file_name,
        file_type,
        file_created_at,
        parse_run_id,
        source,
        metadata
    FROM runs
),
tellings AS (
    -- What runs tell of other resources than themselves: in breakdowns (0; a workflow's: 1), or by a total alone (2).
    SELECT
        entry.id AS resource_key,
        CAST(kind IS NOT DISTINCT FROM 'workflow_run' AS INTEGER) AS distance,
        run_id AS teller_id,
        entry.object AS resource_kind,
        entry.id AS resource_id,
        CASE WHEN entry.object IS DISTINCT FROM 'workflow_run' THEN entry.credits END AS credits,
        entry.charges AS charges
    FROM (
        SELECT
            run_id,
            kind,
            unnest(list_filter(breakdown, lambda entry: entry.id <> run_id)) AS entry
        FROM charging
        WHERE len(breakdown) > 0
    )
    UNION ALL
    -- What an edit run causes is a form detection; the others cause a parse run.
    SELECT
        CASE WHEN kind IS DISTINCT FROM 'edit_run' THEN parse_run_id END,
        2,
        run_id,
        CASE WHEN kind = 'edit_run' THEN 'form_detection_run' ELSE 'parse_run' END,
        CASE WHEN kind IS DISTINCT FROM 'edit_run' THEN parse_run_id END,
        total_credits - credits,
        NULL
    FROM charging
    WHERE kind IS DISTINCT FROM 'workflow_run'
        AND breakdown IS NULL
        AND total_credits > credits
        -- A form detection is known by its file alone.
        AND NOT EXISTS (
            FROM charging AS detection
            WHERE charging.kind = 'edit_run'
                AND detection.kind = 'form_detection_run'
                AND detection.credits IS NOT NULL
                AND detection.file_id = charging.file_id
        )
),
nearest AS (
    -- Of each resource, who stands nearest to it: who caused it, and who says what it was charged.
    SELECT
        resource_key,
        arg_min(teller_id, (distance, teller_id)) FILTER (WHERE distance < 2) AS cause_id,
        arg_min(
            {
                distance: distance, teller_id: teller_id, resource_kind: resource_kind, resource_id: resource_id,
                credits: credits, charges: charges
            },
            (distance, teller_id)
        ) FILTER (WHERE credits IS NOT NULL) AS told
    FROM tellings
    GROUP BY resource_key, CASE WHEN resource_key IS NULL THEN teller_id END
),
charged AS (
    -- Each run with what others tell of it, and each resource of which only others tell.
    SELECT
        CASE
            WHEN own.credits IS NOT NULL AND own.kind IS DISTINCT FROM 'workflow_run' THEN 'own'
            WHEN nearest.told.distance = 0 THEN 'breakdown'
            WHEN nearest.told.distance = 1 THEN 'workflow'
            WHEN nearest.told.distance = 2 THEN 'inferred'
            WHEN own.run_id IS NOT NULL AND own.credits IS NULL THEN 'unknown'
        END AS basis,
        own.*,
        list_filter(own.breakdown, lambda entry: entry.id = own.run_id)[1].charges AS charges,
        nearest.told,
        basis NOT IN ('own', 'unknown') AS told_by_others,
        CASE WHEN told_by_others THEN nearest.told.teller_id ELSE nearest.cause_id END AS nearest_id,
        own.processor_id IS NOT NULL OR own.processor_name IS NOT NULL AS has_processor,
        own.file_id IS NOT NULL OR own.file_name IS NOT NULL AS has_file
    FROM charging AS own
    FULL JOIN nearest ON nearest.resource_key = own.run_id
),
resources AS (
    -- With the run that caused it, which tells what its own row does not.
    SELECT
        basis,
        coalesce(charged.kind, told.resource_kind) AS resource_kind,
        coalesce(charged.run_id, told.resource_id) AS resource_id,
        CASE WHEN told_by_others THEN told.credits ELSE charged.credits END AS credits,
        CASE WHEN told_by_others THEN told.charges ELSE charged.charges END AS charges,
        coalesce(charged.created_at, cause.created_at) AS charged_at,
        charged.status,
        cause.run_id AS caused_by_run_id,
        cause.kind AS caused_by_kind,
        cause.status AS caused_by_status,
        CASE WHEN has_processor THEN charged.processor_id ELSE cause.processor_id END AS processor_id,
        CASE WHEN has_processor THEN charged.processor_name ELSE cause.processor_name END AS processor_name,
        CASE WHEN has_processor THEN charged.processor_version ELSE cause.processor_version END AS processor_version,
        coalesce(charged.workspace_id, cause.workspace_id) AS workspace_id,
        CASE WHEN has_file THEN charged.file_id ELSE cause.file_id END AS file_id,
        CASE WHEN has_file THEN charged.file_name ELSE cause.file_name END AS file_name,
        CASE WHEN has_file THEN charged.file_type ELSE cause.file_type END AS file_type,
        coalesce(charged.source, cause.source) AS source,
        coalesce(charged.metadata, cause.metadata) AS metadata,
        coalesce(charged.created_at, cause.created_at, charged.initial_run_at, charged.file_created_at) AS known_from
    FROM charged
    LEFT JOIN charging AS cause ON cause.run_id = charged.nearest_id
    WHERE basis IS NOT NULL
),
lines AS (
    -- Charges say of what a line is made, where they add up to it.
    SELECT
        * EXCLUDE (charges),
        CASE
            WHEN len(charges) > 0 AND list_sum(list_transform(charges, lambda charge: charge.credits)) = credits
            THEN charges
            ELSE [{
                product: NULL::VARCHAR, unit: NULL::VARCHAR, quantity: NULL::DECIMAL(18, 6),
                credits: credits, pages: NULL::BIGINT[]
            }]
        END AS charges
    FROM resources
),
flat AS (
    SELECT
        * EXCLUDE (charges, credits),
        unnest(charges) AS charge,
        unnest(range(1, len(charges) + 1)) AS line,
        list_transform(charges, lambda charge: charge.product) AS products
    FROM lines
)
SELECT
    resource_kind,
    resource_id,
    charge.product AS product,
    charge.unit AS unit,
    charge.quantity AS quantity,
    charge.credits AS credits,
    basis,
    CAST(charged_at AT TIME ZONE 'UTC' AS DATE) AS charged_on,
    caused_by_run_id,
    processor_id,
    processor_name,
    processor_version,
    workspace_id,
    file_id,
    file_name,
    file_type,
    source,
    metadata,
    status,
    caused_by_kind,
    caused_by_status,
    charged_at,
    line,
    line = 1 OR list_position(products, charge.product) IS NOT DISTINCT FROM line AS is_first_of_product,
    CASE
        WHEN basis <> 'unknown' THEN NULL
        WHEN status IS NULL OR status NOT IN ('PROCESSED', 'FAILED', 'REJECTED', 'CANCELLED') THEN 'not finished'
        WHEN status IN ('FAILED', 'CANCELLED') THEN 'failed or cancelled'
        WHEN known_from < TIMESTAMPTZ '2025-10-07 00:00:00+00' THEN 'created before reporting began'
        ELSE 'processed but not reported'
    END AS unknown_why
FROM flat
