-- What a written FOCUS file comes to, by what its charge periods stand on. Needs the view `focus_written`, of a Parquet
-- or a CSV file: in the latter all is text.
SELECT
    x_ChargePeriodBasis AS basis,
    count(*) AS charges,
    sum(CAST(PricingCurrencyEffectiveCost AS DECIMAL(18, 6))) AS credits,
    sum(CAST(EffectiveCost AS DECIMAL(24, 12))) AS effective_cost,
    sum(CAST(BilledCost AS DECIMAL(24, 12))) AS billed_cost,
    substr(CAST(min(BillingPeriodStart) AS VARCHAR), 1, 7) AS first_month,
    substr(CAST(max(BillingPeriodStart) AS VARCHAR), 1, 7) AS last_month
FROM focus_written
GROUP BY x_ChargePeriodBasis
ORDER BY credits DESC
