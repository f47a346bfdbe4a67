-- The ledger as a FOCUS 1.2 cost and usage dataset: one row a ledger line. FOCUS columns by name, then our own (`x_`).
--
-- Needs the table `focus_terms` of one row: rate and list_rate (USD a credit), billing ('payg' or 'prepaid'), account.
--
-- A line is priced by its own unit (so many credits a page) where that price has at most 12 decimals and times the
-- quantity gives its credits and its cost to the last digit; else by the credit, which always does. So price × quantity
-- is the cost in every row.
--
-- FOCUS allows no charge without a time. A line whose day is not known stands at the nearest time that is known:
-- when the workflow above it was first run, else when its file came, else when it was fetched; x_ChargePeriodBasis says
-- which. ('created' is the time itself.)
WITH undated AS MATERIALIZED (
    SELECT
        run_id,
        initial_run_at,
        file_created_at,
        fetched_at
    FROM runs
    SEMI JOIN (
        SELECT unnest([resource_id, caused_by_run_id]) AS run_id
        FROM credit_ledger
        WHERE charged_at IS NULL
    ) AS wanted USING (run_id)
),
timed AS (
    SELECT
        ledger.*,
        CASE
            WHEN ledger.charged_at IS NOT NULL THEN 'created'
            WHEN coalesce(own.initial_run_at, cause.initial_run_at) IS NOT NULL THEN 'first run'
            WHEN coalesce(own.file_created_at, cause.file_created_at) IS NOT NULL THEN 'file'
            ELSE 'fetched'
        END AS period_basis,
        date_trunc('hour', coalesce(
            ledger.charged_at, own.initial_run_at, cause.initial_run_at, own.file_created_at, cause.file_created_at,
            own.fetched_at, cause.fetched_at
        )) AS period_start
    FROM credit_ledger AS ledger
    LEFT JOIN undated AS own ON ledger.charged_at IS NULL AND own.run_id = ledger.resource_id
    LEFT JOIN undated AS cause ON ledger.charged_at IS NULL AND cause.run_id = ledger.caused_by_run_id
),
scaled AS (
    -- In millionths, as whole numbers: dividing decimals would make binary floats of them.
    SELECT
        *,
        CAST(credits * 1000000 AS HUGEINT) AS credits_micro,
        nullif(CAST(quantity * 1000000 AS HUGEINT), 0) AS quantity_micro,
        CAST(rate * 1000000 AS HUGEINT) AS rate_micro,
        CAST(list_rate * 1000000 AS HUGEINT) AS list_rate_micro
    FROM timed
    CROSS JOIN focus_terms
),
priced AS (
    SELECT
        *,
        coalesce(
            quantity_micro > 0
            AND credits_micro >= 0
            AND credits_micro * 1000000000000 % quantity_micro = 0
            AND credits_micro * rate_micro * 1000000 % quantity_micro = 0
            AND credits_micro * list_rate_micro * 1000000 % quantity_micro = 0
            AND credits_micro // quantity_micro < 1000000,
            FALSE
        ) AS by_unit
    FROM scaled
),
unit_prices AS (
    -- In billionths of a thousandth (12 decimals) again as whole numbers.
    SELECT
        *,
        CASE WHEN by_unit THEN credits_micro * 1000000000000 // quantity_micro ELSE 1000000000000 END AS credits_pico,
        CASE
            WHEN by_unit THEN credits_micro * rate_micro * 1000000 // quantity_micro
            ELSE rate_micro * 1000000
        END AS price_pico,
        CASE
            WHEN by_unit THEN credits_micro * list_rate_micro * 1000000 // quantity_micro
            ELSE list_rate_micro * 1000000
        END AS list_price_pico,
        CASE unit WHEN 'page' THEN 'Pages' WHEN 'cell' THEN 'Cells' WHEN 'usd' THEN 'USD' ELSE coalesce(unit, 'Units') END
            AS unit_name,
        coalesce(product, resource_kind) || '/' || CASE WHEN product IS NULL THEN 'credit' ELSE coalesce(unit, 'unit') END
            AS sku_id
    FROM priced
),
prices AS (
    SELECT
        *,
        CAST(CAST(credits_pico AS DECIMAL(20, 0)) * 0.000000000001 AS DECIMAL(24, 12)) AS credits_price,
        CAST(CAST(price_pico AS DECIMAL(24, 0)) * 0.000000000001 AS DECIMAL(24, 12)) AS price,
        CAST(CAST(list_price_pico AS DECIMAL(24, 0)) * 0.000000000001 AS DECIMAL(24, 12)) AS list_price,
        CAST(credits * rate AS DECIMAL(24, 12)) AS cost,
        CAST(credits * list_rate AS DECIMAL(24, 12)) AS list_cost
    FROM unit_prices
),
named AS (
    SELECT
        *,
        rtrim(rtrim(CAST(credits_price AS VARCHAR), '0'), '.') AS credits_price_text,
        -- Tags may hold scalars alone. Nearly all metadata does as it stands; else what is nested becomes its JSON text.
        CASE
            WHEN metadata IS NULL OR metadata = '{}' THEN NULL
            WHEN NOT regexp_matches(metadata[2:], '[\[{]') THEN metadata
            ELSE '{' || array_to_string(list_transform(
                map_entries(CAST(CAST(metadata AS JSON) AS MAP(VARCHAR, JSON))),
                lambda entry: CAST(to_json(entry.key) AS VARCHAR) || ':' || CASE
                    WHEN json_type(entry.value) IN ('OBJECT', 'ARRAY')
                    THEN CAST(to_json(CAST(entry.value AS VARCHAR)) AS VARCHAR)
                    ELSE coalesce(CAST(entry.value AS VARCHAR), 'null')
                END
            ), ',') || '}'
        END AS tags
    FROM prices
)
SELECT
    CAST(CASE WHEN billing = 'prepaid' THEN 0 ELSE cost END AS DECIMAL(24, 12)) AS BilledCost,
    account AS BillingAccountId,
    account AS BillingAccountName,
    'USD' AS BillingCurrency,
    date_trunc('month', period_start) + INTERVAL 1 MONTH AS BillingPeriodEnd,
    date_trunc('month', period_start) AS BillingPeriodStart,
    'Usage' AS ChargeCategory,
    CAST(NULL AS VARCHAR) AS ChargeClass,
    coalesce(product, 'usage') || ' of ' || resource_kind
        || CASE basis WHEN 'inferred' THEN ', inferred from a total' ELSE '' END AS ChargeDescription,
    'Usage-Based' AS ChargeFrequency,
    period_start + INTERVAL 1 HOUR AS ChargePeriodEnd,
    period_start AS ChargePeriodStart,
    CAST(NULL AS VARCHAR) AS CommitmentDiscountStatus,
    coalesce(quantity, credits) AS ConsumedQuantity,
    CASE WHEN quantity IS NULL THEN 'Credits' ELSE unit_name END AS ConsumedUnit,
    cost AS ContractedCost,
    price AS ContractedUnitPrice,
    cost AS EffectiveCost,
    CAST(NULL AS VARCHAR) AS InvoiceId,
    'Extend' AS InvoiceIssuerName,
    list_cost AS ListCost,
    list_price AS ListUnitPrice,
    'Standard' AS PricingCategory,
    'Credits' AS PricingCurrency,
    credits_price AS PricingCurrencyContractedUnitPrice,
    credits AS PricingCurrencyEffectiveCost,
    credits_price AS PricingCurrencyListUnitPrice,
    CASE WHEN by_unit THEN quantity ELSE credits END AS PricingQuantity,
    CASE WHEN by_unit THEN unit_name ELSE 'Credits' END AS PricingUnit,
    'Extend' AS ProviderName,
    'Extend' AS PublisherName,
    resource_id AS ResourceId,
    CASE WHEN resource_id IS NOT NULL THEN resource_kind END AS ResourceType,
    'AI and Machine Learning' AS ServiceCategory,
    resource_kind AS ServiceName,
    'Other (AI and Machine Learning)' AS ServiceSubcategory,
    sku_id AS SkuId,
    coalesce(product, resource_kind) || ' per '
        || CASE WHEN product IS NULL THEN 'credit' ELSE coalesce(unit, 'unit') END AS SkuMeter,
    '{"x_CreditsPerUnit":' || credits_price_text || '}' AS SkuPriceDetails,
    sku_id || CASE WHEN by_unit THEN '@' || credits_price_text ELSE '@credit' END AS SkuPriceId,
    workspace_id AS SubAccountId,
    workspace_id AS SubAccountName,
    tags AS Tags,
    basis AS x_Basis,
    caused_by_run_id AS x_CausedByRunId,
    period_basis AS x_ChargePeriodBasis,
    file_id AS x_FileId,
    file_name AS x_FileName,
    file_type AS x_FileType,
    line AS x_Line,
    processor_id AS x_ProcessorId,
    processor_name AS x_ProcessorName,
    processor_version AS x_ProcessorVersion,
    product AS x_Product,
    source AS x_Source,
    status AS x_Status,
    unit AS x_Unit
FROM named
ORDER BY period_start, resource_id, caused_by_run_id, line
